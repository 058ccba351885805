//! The Rust sources of the workspace as token trees: which files there are, which module each one
//! is, which paths it names and how long its functions are. It judges nothing.
//!
//! It reads tokens rather than text, so that comments and strings do not count, and rather than a
//! syntax tree, so that what stands inside a macro does.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// A file, by its path from the root of the repository.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) lines: usize,
    pub(crate) tokens: TokenStream,
}

/// A file as a module of its crate, without what is compiled for tests only.
pub(crate) struct Module {
    /// The name of the crate, then those of the modules.
    pub(crate) name: Vec<String>,
    pub(crate) file: String,
    pub(crate) tokens: TokenStream,
}

/// A path of at least two segments, as `crate::store::Upload`.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
}

/// A function with a body.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) lines: usize,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the package has a parent").to_owned()
}

/// Every Rust file of the workspace.
pub(crate) fn files() -> Vec<File> {
    let root = root();
    let mut paths = Vec::new();
    for folder in ["proto", "coordinator", "worker", "tests"] {
        collect(&root.join(folder), &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| read(&root, path)).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> File {
    let text = std::fs::read_to_string(path).expect("a readable file");
    let path = path.strip_prefix(root).expect("a file below the root");
    let path = path.to_string_lossy().into_owned();
    let tokens = text.parse();
    File {
        lines: text.lines().count(),
        tokens: tokens.unwrap_or_else(|error| panic!("{path}: {error}")),
        path,
    }
}

/// The modules of the crate `name` from its root file on, as `mod` lines lead to them.
pub(crate) fn modules(name: &str, root_file: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let root = root();
    let folder = root.join(root_file);
    let folder = folder.parent().expect("a file is in a folder").to_owned();
    let mut pending = vec![(vec![name.to_owned()], root.join(root_file), folder)];
    while let Some((name, path, folder)) = pending.pop() {
        let file = read(&root, &path);
        let tokens = without_tests(file.tokens);
        for child in child_modules(&tokens) {
            let flat = folder.join(format!("{child}.rs"));
            let path = match flat.exists() {
                true => flat,
                false => folder.join(&child).join("mod.rs"),
            };
            let mut name = name.clone();
            name.push(child.clone());
            pending.push((name, path, folder.join(child)));
        }
        found.push(Module {
            name,
            file: file.path,
            tokens,
        });
    }
    found
}

/// The names in `mod name;`.
fn child_modules(tokens: &TokenStream) -> Vec<String> {
    let trees: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let declared = trees.windows(3).filter_map(|three| match three {
        [keyword, TokenTree::Ident(name), TokenTree::Punct(end)]
            if is_word(keyword, "mod") && end.as_char() == ';' =>
        {
            Some(name.to_string())
        }
        _ => None,
    });
    declared.collect()
}

/// The same without the items that `#[cfg(test)]` stands before, at any depth.
pub(crate) fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    let mut trees = tokens.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let attribute = is_punct(&tree, '#')
            .then(|| trees.next_if(|next| is_group(next, Delimiter::Bracket)))
            .flatten();
        match attribute {
            Some(attribute) if attribute.to_string().replace(' ', "") == "[cfg(test)]" => {
                skip_item(&mut trees);
            }
            Some(attribute) => kept.extend([tree, attribute]),
            None => kept.push(match tree {
                TokenTree::Group(group) => {
                    let mut inner = Group::new(group.delimiter(), without_tests(group.stream()));
                    inner.set_span(group.span());
                    TokenTree::Group(inner)
                }
                other => other,
            }),
        }
    }
    kept.into_iter().collect()
}

/// Up to the end of an item: a semicolon, or braces that are not the list of a `use`.
fn skip_item(trees: &mut impl Iterator<Item = TokenTree>) {
    let mut import = false;
    for tree in trees {
        import |= is_word(&tree, "use");
        if is_punct(&tree, ';') || (!import && is_group(&tree, Delimiter::Brace)) {
            return;
        }
    }
}

/// Every path in `tokens`; each entry of a list in braces is a path of its own.
pub(crate) fn names(tokens: &TokenStream) -> Vec<Name> {
    let mut found = Vec::new();
    names_below(&[], tokens, &mut found);
    found
}

fn names_below(prefix: &[String], tokens: &TokenStream, found: &mut Vec<Name>) {
    let trees: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut at = 0;
    while at < trees.len() {
        let TokenTree::Ident(first) = &trees[at] else {
            if let TokenTree::Group(group) = &trees[at] {
                names_below(&[], &group.stream(), found);
            }
            at += 1;
            continue;
        };
        if first == "as" {
            // What follows is a new name, not a path.
            at += 2;
            continue;
        }
        let line = first.span().start().line;
        let mut segments = prefix.to_vec();
        segments.push(first.to_string());
        at += 1;
        while is_path_separator(&trees, at) {
            at += 2;
            match trees.get(at) {
                Some(TokenTree::Ident(next)) => segments.push(next.to_string()),
                Some(TokenTree::Group(list)) if list.delimiter() == Delimiter::Brace => {
                    names_below(&segments, &list.stream(), found);
                    segments.clear();
                }
                // A turbofish, or everything (`*`).
                _ => break,
            }
            at += 1;
        }
        if segments.len() > 1 {
            found.push(Name { segments, line });
        }
    }
}

fn is_path_separator(trees: &[TokenTree], at: usize) -> bool {
    match (trees.get(at), trees.get(at + 1)) {
        (Some(TokenTree::Punct(first)), Some(TokenTree::Punct(second))) => {
            (first.as_char(), second.as_char()) == (':', ':') && first.spacing() == Spacing::Joint
        }
        _ => false,
    }
}

/// Every function with a body in `tokens`, also in other functions and in macros.
pub(crate) fn functions(tokens: &TokenStream) -> Vec<Function> {
    let trees: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut found = Vec::new();
    for (at, tree) in trees.iter().enumerate() {
        if let TokenTree::Group(group) = tree {
            found.extend(functions(&group.stream()));
        }
        if let (true, Some(TokenTree::Ident(name))) = (is_word(tree, "fn"), trees.get(at + 1)) {
            let body = trees[at..]
                .iter()
                .take_while(|tree| !is_punct(tree, ';'))
                .find(|tree| is_group(tree, Delimiter::Brace));
            found.extend(body.map(|body| Function {
                name: name.to_string(),
                lines: 1 + body.span().end().line - tree.span().start().line,
            }));
        }
    }
    found
}

/// Whether the word stands anywhere in `tokens`.
pub(crate) fn has_word(tokens: &TokenStream, word: &str) -> bool {
    tokens.clone().into_iter().any(|tree| match &tree {
        TokenTree::Group(group) => has_word(&group.stream(), word),
        _ => is_word(&tree, word),
    })
}

fn is_word(tree: &TokenTree, word: &str) -> bool {
    matches!(tree, TokenTree::Ident(ident) if ident == word)
}

fn is_punct(tree: &TokenTree, punct: char) -> bool {
    matches!(tree, TokenTree::Punct(found) if found.as_char() == punct)
}

fn is_group(tree: &TokenTree, delimiter: Delimiter) -> bool {
    matches!(tree, TokenTree::Group(group) if group.delimiter() == delimiter)
}
