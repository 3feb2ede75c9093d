//! The black-box tests: one file for each promise, against the real programs, all in one test binary.
//!
//! Each `tests/NAME.rs` is a module of this binary, so that the crate is linked once and not once for each file. **A new
//! file needs a line below, `mod NAME;`**, in the order of the alphabet; `every_file_is_a_module_of_this_binary` fails
//! when it is missing. Inside the file, `use crate::common::…` gives the machinery.
//!
//! A test that measures time takes `crate::common::turns::alone()`. One that is large takes its numbers from
//! `crate::common::scale::by_scale(quick, default, long)`, or begins with `if !runs_from(Scale::Long) { return; }`.
//!
//! One file runs with `cargo test --test promises NAME::`, one test with `cargo test --test promises NAME::TEST`.

#![allow(clippy::unwrap_used, reason = "a test that fails may say so in few words")]
#![allow(clippy::disallowed_methods, reason = "tests are other programs: they have no clock of a daemon")]

mod common;
mod flips;

mod a_backlog_of_200000_events_is_delivered;
mod a_backup_is_a_server;
mod a_clock_that_jumps_loses_nothing;
mod a_code_is_explained_by_both_programs;
mod a_failing_disk_loses_nothing;
mod a_flipped_byte_never_lies;
mod a_full_disk_loses_nothing;
mod a_hung_disk_does_not_hold_up_a_stop;
mod a_key_gives_the_first_answer;
mod a_million_events_wait_in_a_small_edge;
mod a_million_keys_are_the_most;
mod a_month_is_billed_through_kills;
mod a_plain_req_client_is_served;
mod a_queue_that_stands_still_is_an_alarm;
mod a_silent_server_is_left_for_the_next_address;
mod alarms_reach_a_person;
mod an_edge_tries_itself_out_with_made_up_cars;
mod bad_settings_are_refused_and_nothing_is_touched;
mod browsers_show_the_board;
mod browsers_show_the_city;
mod cameras_post_and_see_nothing;
mod clients_that_hang_keep_nobody_out;
mod commands_are_positions_in_the_ledger;
mod confirmed_events_survive_kills;
mod confirmed_events_survive_power_cuts;
mod confirming_ends_in_a_sync;
mod curves_follow_from_the_events;
mod daemons_on_damaged_stores_tell_the_truth;
mod damage_never_stops_a_garage_or_the_city;
mod dependencies_are_known;
mod directories_and_ledgers_may_be_copied_and_lost;
mod documents_lose_their_plates_after_years;
mod forgotten_plates_are_gone;
mod garages_say_when_they_are_open;
mod garages_take_turns_at_a_busy_server;
mod hostile_clients_bring_nothing_down;
mod hostile_commands_change_nothing;
mod hostile_peers_bring_nothing_down;
mod json_answers_have_the_documented_shape;
mod long_documents_take_little_memory;
mod looking_keeps_no_edge_from_starting;
mod misframed_requests_are_taken_once_or_not_at_all;
mod money_follows_from_events;
mod nonsense_at_every_door_changes_nothing;
mod nonsense_from_a_peer_changes_nothing;
mod nothing_is_confirmed_into_a_removed_directory;
mod numbers_survive_a_restore;
mod one_car_is_one_plate;
mod other_sites_reach_no_daemon;
mod payments_and_journal_follow_from_documents;
mod prices_act_by_date;
mod signs_show_what_a_garage_has;
mod statements_add_up;
mod stays_follow_from_the_events;
mod stays_that_do_not_add_up_are_repaired;
mod the_board_does_not_wait_behind_a_million_events;
mod the_board_is_pushed;
mod the_board_of_a_large_city_reaches_every_edge;
mod the_city_in_bad_weather;
mod the_code_is_tidy;
mod the_example_configuration_is_true;
mod the_example_meter_runs;
mod the_frozen_ledger_is_read;
mod the_journal_imports_into_hledger;
mod the_oracle_sees_what_is_wrong;
mod the_readme_is_true;
mod the_same_days_cost_the_same;
mod the_security_page_is_true;
mod the_test_command_says_what_it_does;
mod the_whole_replay_is_right;
mod the_worked_examples_are_priced_right;
mod times_mean_the_same_everywhere;
mod tls_a_garage_speaks_only_for_itself;
mod tls_a_revoked_certificate_ends_its_connection;
mod tls_an_expired_certificate_stops_no_garage;
mod tls_and_plain_text_never_mix;
mod tls_keys_stay_secret;
mod tls_renewed_certificates_need_no_restart;
mod tokens_say_who_may_read;
mod verify_finds_what_is_wrong;
mod what_is_only_reported_leaves_no_trace;
mod what_is_stored_is_for_its_owner_alone;
mod what_is_wrong_is_said_in_its_own_words;
mod what_operators_write_is_taken_as_it_is;
mod who_did_what_is_on_record;
mod wire_bytes;
mod without_a_server_an_edge_works_on;

/// A file without its line above would not be compiled, and nobody would notice that its tests never run.
#[test]
fn every_file_is_a_module_of_this_binary() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let modules: Vec<&str> =
        include_str!("main.rs").lines().filter_map(|line| line.strip_prefix("mod ")).collect();
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if path.extension().is_none_or(|extension| extension != "rs") || name == "main" {
            continue;
        }
        files += 1;
        let line = format!("{name};");
        assert!(
            modules.contains(&line.as_str()),
            "tests/main.rs lacks `mod {line}`, so tests/{name}.rs is not compiled"
        );
    }
    assert!(files > 30, "only {files} files were found");
}
