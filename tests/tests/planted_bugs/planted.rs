//! The list of planted bugs: one file each in `tests/planted`.
//!
//! A file says in its first line why the bug matters; then which checkers may find it, in which source
//! file it is, what stands there, and what is to stand there instead.

use std::fs;
use std::path::Path;

/// One planted bug.
#[derive(Debug)]
pub(crate) struct Planted {
    /// The name of its file.
    pub(crate) name: String,
    /// Why it matters.
    pub(crate) why: String,
    /// The checkers that may be the first to find it.
    pub(crate) found_by: Vec<String>,
    /// The source file, from the root of the workspace.
    pub(crate) file: String,
    /// What stands there, exactly once.
    old: String,
    /// What is to stand there.
    new: String,
}

impl Planted {
    /// Reads all planted bugs, by their names.
    pub(crate) fn all(folder: &Path) -> Vec<Self> {
        let mut paths: Vec<_> = fs::read_dir(folder)
            .expect("tests/planted")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "bug"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(path).expect("a planted bug");
        let parse = || {
            let (why, rest) = text.split_once('\n')?;
            let (found_by, rest) = rest.strip_prefix("found by: ")?.split_once('\n')?;
            let (file, rest) = rest.strip_prefix("in: ")?.split_once('\n')?;
            let (old, new) = rest.strip_prefix("--- instead of\n")?.split_once("\n--- write\n")?;
            Some(Self {
                name: name.clone(),
                why: why.to_owned(),
                found_by: found_by.split(' ').map(str::to_owned).collect(),
                file: file.to_owned(),
                old: old.to_owned(),
                new: new.strip_suffix('\n').unwrap_or(new).to_owned(),
            })
        };
        parse().unwrap_or_else(|| panic!("{} is not in the form of a planted bug", path.display()))
    }

    /// The source with the bug in it.
    ///
    /// # Errors
    /// When the source has changed, so that it is not clear any more where the bug belongs.
    pub(crate) fn plant(&self, source: &str) -> Result<String, String> {
        match source.matches(&self.old).count() {
            1 => Ok(source.replacen(&self.old, &self.new, 1)),
            count => Err(format!(
                "{}: its text stands {count} times in {}, and not once; bring tests/planted/{}.bug up to date",
                self.name, self.file, self.name
            )),
        }
    }
}
