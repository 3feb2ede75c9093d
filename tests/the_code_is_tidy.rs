//! **Promise.** What ARCHITECTURE.md says of the layers holds, and so do the rules that keep the code readable: imports go down
//! and never in a circle, files and functions stay short, one name means one type, prose uses plain words, nobody reads a clock where
//! decisions are made, `unsafe` is where it is documented, and what holds a key cannot be shown.
//!
//! The source is parsed (`syn`), so that comments and strings are never taken for code. An exception is a line in a list below,
//! with its reason; an exception that is no longer needed fails as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use syn::spanned::Spanned;
use syn::visit::Visit;

/// The layers, lowest first. A module may import those of lower layers and itself, and none of its own layer.
const LAYERS: &[&[&str]] = &[
    &["codes", "text"],
    &["store"],
    &["messaging", "parking"],
    &["fault_proxy", "transport"],
    &["audit", "telemetry"],
    &["config"],
    &["http"],
    &["daemon"],
    &["traffic"],
    &["edge", "server"],
    &["cli"],
];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 80;

/// Longer files: (path, reason).
const LONG_FILES: &[(&str, &str)] = &[];

/// Longer functions: (path, function, reason).
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Type names that stand for more than one type: (name, reason).
const SHARED_NAMES: &[(&str, &str)] = &[];

/// Neighbours that import each other in a circle: (folder, modules, reason).
const CIRCLES: &[(&str, &[&str], &str)] = &[];

/// Phrases that no native engineer would write, or that the field has another word for.
const PHRASES: &[&str] = &["anew", "whoever", "so many", "the former", "is told"];

/// Where decisions are made. Time arrives there with the event.
const WITHOUT_CLOCK: &[&str] = &["src/parking/", "src/messaging/sender/", "src/messaging/receiver"];

/// The files that read the wall clock: (path, reason).
const WALL_CLOCK: &[(&str, &str)] = &[
    ("src/daemon/clock.rs", "everybody else asks it"),
    ("src/http/mod.rs", "the Date header of answers that hyper does not make; http knows no daemon"),
    ("src/store/salvage.rs", "the date in the name of a damaged store; the store knows no daemon"),
];

/// Where `unsafe` is: (path, reason). The lint `unsafe_code` denies it elsewhere; ARCHITECTURE.md names the same files.
const UNSAFE: &[(&str, &str)] = &[
    ("src/daemon/clock.rs", "adjtimex tells whether the clock is set"),
    ("src/daemon/memory.rs", "mallopt"),
    ("src/store/barrier.rs", "symbols that sled calls"),
    ("tests/common/disk.rs", "system calls by which tests cut the power of a disk"),
];

/// Types that hold secrets.
const SECRETS: &[&str] = &["KeyPair", "PrivateKeyDer", "CertifiedKey", "Zeroizing"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file, parsed, without what is compiled for tests only.
struct Source {
    /// As in `src/server/web/events.rs`.
    path: String,
    /// As in `["server", "web", "events"]`.
    module: Vec<String>,
    lines: usize,
    code: syn::File,
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join("src"), "rs", &mut paths);
    paths.sort();
    let mut sources = Vec::new();
    let mut for_tests = BTreeSet::new();
    for path in &paths {
        let text = fs::read_to_string(path).unwrap();
        let code = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for item in &code.items {
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
                && is_for_tests(&module.attrs)
            {
                for_tests.insert(file_of(path, module));
            }
        }
        let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let module = relative["src/".len()..].trim_end_matches(".rs").split('/').map(str::to_owned);
        let module = module.filter(|part| part != "mod" && part != "lib").collect();
        sources.push((path.clone(), Source { path: relative, module, lines: text.lines().count(), code }));
    }
    let is_for_tests = |path: &Path| {
        for_tests.iter().any(|file: &PathBuf| path == file || path.starts_with(file.with_extension("")))
    };
    let sources: Vec<Source> =
        sources.into_iter().filter(|(path, _)| !is_for_tests(path)).map(|(_, source)| source).collect();
    assert!(sources.len() > 100, "only {} files were read", sources.len());
    sources
}

fn files_below(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|its| its == extension) {
            found.push(path);
        }
    }
}

fn is_for_tests(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| {
        let text = match &attr.meta {
            syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
            syn::Meta::Path(path) if path.is_ident("test") => return true,
            _ => return false,
        };
        let text = text.replace(' ', "");
        text == "test" || text.starts_with("all(test") || text.starts_with("any(test")
    })
}

/// The file of `mod name;` in `parent`.
fn file_of(parent: &Path, module: &syn::ItemMod) -> PathBuf {
    let folder = parent.parent().unwrap();
    for attr in &module.attrs {
        if let syn::Meta::NameValue(pair) = &attr.meta
            && pair.path.is_ident("path")
            && let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }) = &pair.value
        {
            return folder.join(name.value());
        }
    }
    let stem = parent.file_stem().unwrap();
    let folder = if stem == "mod" || stem == "lib" { folder.to_owned() } else { folder.join(stem) };
    let file = folder.join(format!("{}.rs", module.ident));
    if file.exists() { file } else { folder.join(module.ident.to_string()).join("mod.rs") }
}

/// Goes over what is not for tests, and collects paths, functions, and types of the module's own level.
#[derive(Default)]
struct Survey {
    /// Paths as they are written, `use` trees unrolled, with their lines.
    paths: Vec<(Vec<String>, usize)>,
    functions: Vec<(String, usize)>,
    types: Vec<String>,
    /// `pub use` of this module: what a name stands for.
    exports: BTreeMap<String, Vec<String>>,
    within: usize,
}

impl Survey {
    fn of(source: &Source) -> Survey {
        let mut survey = Survey::default();
        survey.visit_file(&source.code);
        survey
    }

    fn unroll(&mut self, tree: &syn::UseTree, so_far: &mut Vec<String>, exported: bool) {
        match tree {
            syn::UseTree::Path(path) => {
                so_far.push(path.ident.to_string());
                self.unroll(&path.tree, so_far, exported);
                so_far.pop();
            }
            syn::UseTree::Group(group) => {
                for tree in &group.items {
                    self.unroll(tree, so_far, exported);
                }
            }
            syn::UseTree::Name(syn::UseName { ident })
            | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                let mut path = so_far.clone();
                if ident != "self" {
                    path.push(ident.to_string());
                }
                let name = match tree {
                    syn::UseTree::Rename(rename) => rename.rename.to_string(),
                    _ => path.last().cloned().unwrap_or_default(),
                };
                if exported {
                    self.exports.insert(name, path.clone());
                }
                self.paths.push((path, ident.span().start().line));
            }
            syn::UseTree::Glob(glob) => {
                self.paths.push((so_far.clone(), glob.star_token.span().start().line))
            }
        }
    }
}

impl<'a> Visit<'a> for Survey {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attrs = match item {
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Enum(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if is_for_tests(attrs) {
            return;
        }
        if self.within == 0 {
            match item {
                syn::Item::Struct(item) => self.types.push(item.ident.to_string()),
                syn::Item::Enum(item) => self.types.push(item.ident.to_string()),
                _ => {}
            }
        }
        self.within += usize::from(!matches!(item, syn::Item::Mod(_)));
        syn::visit::visit_item(self, item);
        self.within -= usize::from(!matches!(item, syn::Item::Mod(_)));
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.unroll(&item.tree, &mut Vec::new(), !matches!(item.vis, syn::Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.paths.push((names, path.span().start().line));
        syn::visit::visit_path(self, path);
    }

    fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
        self.functions.push((item.sig.ident.to_string(), lines_of(item)));
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if !is_for_tests(&item.attrs) {
            self.functions.push((item.sig.ident.to_string(), lines_of(item)));
            syn::visit::visit_impl_item_fn(self, item);
        }
    }
}

/// From the line of `fn` to that of the closing brace.
fn lines_of(item: &(impl Spanned + HasSignature)) -> usize {
    item.span().end().line - item.signature().fn_token.span().start().line + 1
}

trait HasSignature {
    fn signature(&self) -> &syn::Signature;
}

impl HasSignature for syn::ItemFn {
    fn signature(&self) -> &syn::Signature {
        &self.sig
    }
}

impl HasSignature for syn::ImplItemFn {
    fn signature(&self) -> &syn::Signature {
        &self.sig
    }
}

/// Fails with all that is wrong, and with the exceptions that nothing needs.
fn hold(what: &str, found: BTreeMap<String, String>, exceptions: BTreeSet<String>) {
    let mut wrong: Vec<String> =
        found.iter().filter(|(key, _)| !exceptions.contains(*key)).map(|(_, said)| said.clone()).collect();
    wrong.extend(
        exceptions
            .iter()
            .filter(|key| !found.contains_key(*key))
            .map(|key| format!("{key}: this exception is no longer needed")),
    );
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

#[test]
fn imports_go_to_lower_layers_only() {
    let layer_of = |module: &str| LAYERS.iter().position(|layer| layer.contains(&module));
    let mut wrong = BTreeMap::new();
    for source in sources() {
        let Some(own) = source.module.first() else { continue }; // lib.rs, the list of all modules
        if own == "bin" {
            continue;
        }
        let own_layer = layer_of(own).unwrap_or_else(|| panic!("{own} stands in no layer of {}", file!()));
        for (path, line) in Survey::of(&source).paths {
            let absolute = absolute(&source.module, &path);
            let Some(other) = absolute.first().filter(|other| *other != own) else { continue };
            if layer_of(other).is_some_and(|layer| layer >= own_layer) {
                let place = format!("{}:{line}", source.path);
                wrong.insert(place.clone(), format!("{place}: {own} imports {other}, which is not below it"));
            }
        }
    }
    hold("imports that go up", wrong, BTreeSet::new());
}

/// The path from the crate's root, or nothing when it leads out of the crate or to what is in scope.
fn absolute(module: &[String], path: &[String]) -> Vec<String> {
    let mut base = module.to_vec();
    let mut rest = path;
    match rest.first().map(String::as_str) {
        Some("crate") => {
            base.clear();
            rest = &rest[1..];
        }
        Some("self") => rest = &rest[1..],
        Some("super") => {}
        _ => return Vec::new(),
    }
    while rest.first().is_some_and(|part| part == "super") {
        base.pop();
        rest = &rest[1..];
    }
    base.extend_from_slice(rest);
    base
}

#[test]
fn modules_do_not_import_each_other_in_a_circle() {
    let sources = sources();
    let modules: BTreeSet<&[String]> = sources.iter().map(|source| source.module.as_slice()).collect();
    let surveys: BTreeMap<&[String], Survey> =
        sources.iter().map(|source| (source.module.as_slice(), Survey::of(source))).collect();
    // Where a path ends up, through `pub use` of the modules on its way.
    let resolve = |from: &[String], path: &[String]| {
        let mut target = absolute(from, path);
        for _ in 0..8 {
            let Some(at) = (0..target.len()).rev().find(|at| modules.contains(&target[..*at])) else { break };
            let exported = surveys[&target[..at]].exports.get(&target[at]);
            let is_module = modules.contains(&target[..=at]);
            let Some(exported) = exported.filter(|_| !is_module) else { break };
            let mut through = match exported.first().map(String::as_str) {
                Some("crate" | "self" | "super") => absolute(&target[..at], exported),
                _ => [&target[..at], exported.as_slice()].concat(),
            };
            through.extend_from_slice(&target[at + 1..]);
            if through == target {
                break;
            }
            target = through;
        }
        target
    };
    let excuse_of = |folder: &str, from: &str, to: &str| {
        CIRCLES
            .iter()
            .position(|(its, modules, _)| *its == folder && modules.contains(&from) && modules.contains(&to))
    };
    // For each folder: which of its modules imports which of its neighbours.
    let mut imports: BTreeMap<&[String], BTreeMap<&str, BTreeMap<String, String>>> = BTreeMap::new();
    for source in &sources {
        for (path, line) in &surveys[source.module.as_slice()].paths {
            let target = resolve(&source.module, path);
            let common = source.module.iter().zip(&target).take_while(|(own, other)| own == other).count();
            let folder = &source.module[..common];
            if common == source.module.len() || common >= target.len() {
                continue; // to a part of itself, or to the folder that it stands in
            }
            let neighbour = [folder, std::slice::from_ref(&target[common])].concat();
            if modules.contains(neighbour.as_slice()) {
                let of_folder = imports.entry(folder).or_default();
                let of_module = of_folder.entry(&source.module[common]).or_default();
                of_module.entry(target[common].clone()).or_insert(format!("{}:{line}", source.path));
            }
        }
    }
    let mut circles = BTreeMap::new();
    for (folder, edges) in &imports {
        for (from, targets) in edges {
            for (to, place) in targets {
                let Some(way) = way_back(edges, to, from) else { continue };
                let folder = folder.join("::");
                let key = match excuse_of(&folder, from, to) {
                    Some(excuse) => format!("exception {excuse}"),
                    None => format!("{folder} {from} {to}"),
                };
                circles.insert(key, format!("{place}: in {folder}: {from} -> {}", way.join(" -> ")));
            }
        }
    }
    let exceptions = (0..CIRCLES.len()).map(|excuse| format!("exception {excuse}")).collect();
    hold("circles of imports", circles, exceptions);
}

/// The shortest way from one module to another.
fn way_back<'a>(
    edges: &'a BTreeMap<&str, BTreeMap<String, String>>,
    from: &'a str,
    to: &str,
) -> Option<Vec<&'a str>> {
    let mut ways = std::collections::VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::from([from]);
    while let Some(way) = ways.pop_front() {
        let last = *way.last().expect("a way begins somewhere");
        if last == to {
            return Some(way);
        }
        for next in edges.get(last).into_iter().flatten().map(|(name, _)| name.as_str()) {
            if seen.insert(next) {
                ways.push_back([way.as_slice(), &[next]].concat());
            }
        }
    }
    None
}

#[test]
fn files_and_functions_stay_short() {
    let mut files = BTreeMap::new();
    let mut functions = BTreeMap::new();
    for source in sources() {
        if source.lines > FILE_LINES_MAX {
            files.insert(source.path.clone(), format!("{}: {} lines", source.path, source.lines));
        }
        for (name, lines) in Survey::of(&source).functions {
            if lines > FUNCTION_LINES_MAX {
                let key = format!("{} {name}", source.path);
                functions.insert(key, format!("{}: {name} has {lines} lines", source.path));
            }
        }
    }
    hold("long files", files, LONG_FILES.iter().map(|(path, _)| (*path).to_owned()).collect());
    let exceptions = LONG_FUNCTIONS.iter().map(|(path, name, _)| format!("{path} {name}")).collect();
    hold("long functions", functions, exceptions);
}

#[test]
fn one_name_means_one_type() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources() {
        for name in Survey::of(&source).types {
            places.entry(name).or_default().push(source.path.clone());
        }
    }
    places.retain(|_, paths| paths.len() > 1);
    let shared =
        places.into_iter().map(|(name, paths)| (name.clone(), format!("{name}: {}", paths.join(", "))));
    hold(
        "names of several types",
        shared.collect(),
        SHARED_NAMES.iter().map(|(name, _)| (*name).to_owned()).collect(),
    );
}

#[test]
fn prose_help_and_logs_use_plain_words() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches", "examples"] {
        files_below(&root().join(folder), "rs", &mut paths);
    }
    files_below(&root().join("src"), "html", &mut paths);
    // This file names the phrases.
    paths.retain(|path| !path.ends_with("tests/the_code_is_tidy.rs"));
    paths.extend(
        [
            "README.md",
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "SECURITY.md",
            "config.example.toml",
            "test",
            "fuzz/run",
        ]
        .map(|name| root().join(name)),
    );
    let mut found = BTreeMap::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            for phrase in PHRASES.iter().filter(|phrase| has_phrase(line, phrase)) {
                let place = format!("{}:{number}", path.strip_prefix(root()).unwrap().display());
                found.insert(place.clone(), format!("{place}: {phrase:?} in {}", line.trim()));
            }
        }
    }
    hold("phrases to be replaced", found, BTreeSet::new());
}

fn has_phrase(line: &str, phrase: &str) -> bool {
    let line = line.to_lowercase();
    line.match_indices(phrase).any(|(at, _)| {
        let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_word(line[..at].chars().next_back()) && !is_word(line[at + phrase.len()..].chars().next())
    })
}

#[test]
fn only_whole_words_are_phrases() {
    assert!(has_phrase("// It is Told, and begins ANEW.", "anew"));
    assert!(!has_phrase("a_new, manew and anew_", "anew"));
}

#[test]
fn clocks_are_read_where_they_may_be() {
    let mut found = BTreeMap::new();
    for source in sources() {
        for (path, line) in Survey::of(&source).paths {
            let [.., kind, "now"] = path.iter().map(String::as_str).collect::<Vec<_>>()[..] else { continue };
            let decides = WITHOUT_CLOCK.iter().any(|place| source.path.starts_with(place));
            let is_wrong = match kind {
                "Instant" => decides,
                "SystemTime" | "Timestamp" | "Zoned" => {
                    WALL_CLOCK.iter().all(|(path, _)| source.path != *path)
                }
                _ => false,
            };
            if is_wrong {
                let place = format!("{}:{line}", source.path);
                found.insert(place.clone(), format!("{place}: {kind}::now()"));
            }
        }
    }
    hold("clocks that are read elsewhere", found, BTreeSet::new());
}

#[test]
fn unsafe_code_is_where_the_architecture_says() {
    let mut paths = Vec::new();
    for folder in ["src", "tests", "benches", "examples", "fuzz/fuzz_targets"] {
        files_below(&root().join(folder), "rs", &mut paths);
    }
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut found = BTreeMap::new();
    for path in paths {
        let place = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        // The attribute that allows it: without one the code does not compile.
        if text.contains(concat!("(unsafe", "_code")) {
            found.insert(place.clone(), format!("{place} allows unsafe code"));
        }
    }
    for (path, _) in UNSAFE {
        let named = path.trim_start_matches("src/");
        assert!(architecture.contains(&format!("`{named}`")), "ARCHITECTURE.md does not name {named}");
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("\nunsafe_code = \"deny\""), "the lint");
    hold("unsafe code", found, UNSAFE.iter().map(|(path, _)| (*path).to_owned()).collect());
}

/// A type that holds a key has no `Debug`, by which it would get into a log or an error, and is never copied or sent as data.
#[test]
fn types_that_hold_keys_cannot_be_shown() {
    let (mut holders, mut wrong) = (0, Vec::new());
    for source in sources() {
        for item in &source.code.items {
            let (name, attrs) = match item {
                syn::Item::Struct(item) => (&item.ident, &item.attrs),
                syn::Item::Enum(item) => (&item.ident, &item.attrs),
                _ => continue,
            };
            let mut words = Words::default();
            words.visit_item(item);
            if !SECRETS.iter().any(|secret| words.0.contains(*secret)) {
                continue;
            }
            holders += 1;
            let derived = attrs.iter().filter_map(|attr| attr.meta.require_list().ok());
            let derived: String = derived.map(|list| list.tokens.to_string()).collect();
            for shown in ["Debug", "Clone", "Serialize"] {
                if derived.contains(shown) {
                    wrong.push(format!("{}: {name} holds a secret and derives {shown}", source.path));
                }
            }
        }
    }
    assert!(holders >= 3, "only {holders} types with keys were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[derive(Default)]
struct Words(BTreeSet<String>);

impl Visit<'_> for Words {
    fn visit_ident(&mut self, word: &syn::Ident) {
        self.0.insert(word.to_string());
    }
}
