use super::*;

/// How much memory is resident now.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
#[ignore = "a measure, to be run alone: cargo test --lib register::tests::memory -- --ignored --nocapture --test-threads 1"]
fn what_a_plate_takes_in_memory_and_an_import_in_time() {
    const COUNT: usize = 300_000;
    let held: String = (0..COUNT).map(|n| format!("BAB{n:06},account {},,2026-01-01,\n", n / 3)).collect();
    let named: String = (0..COUNT)
        .map(|n| format!("contract {},account {},BAB{n:06},*,2026-01-01,,1\n", n / 3, n / 3))
        .collect();
    let (held, named) =
        (format!("plate,account,name,valid_from,valid_to\n{held}"), format!("{CONTRACTS}{named}"));
    let mut register = Register::default();
    for (what, text) in [("registered", &held), ("registered and in a contract", &named)] {
        let begun = std::time::Instant::now();
        let import = match what {
            "registered" => register.import_plates(text),
            _ => register.import_contracts(text, no_renames),
        };
        let facts = import.unwrap().facts;
        let (read, begun) = (begun.elapsed(), std::time::Instant::now());
        let before = resident();
        facts.iter().for_each(|fact| drop(register.apply(fact)));
        let (bytes, applied) = (resident() - before, begun.elapsed());
        println!(
            "{what}: {} facts, {bytes} bytes more; read in {read:?}, applied in {applied:?}",
            facts.len()
        );
        std::mem::forget(facts);
    }
}
