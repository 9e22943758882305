//! What every [`Files`] must do, faults and loss of power aside. Each implementation runs this
//! suite on fresh, empty directories made by its factory; a broken promise panics with its name.

use crate::{File, Files, IoError, IoKind, OpenMode};
use bytes::Bytes;
use futures::future::Future;
use std::sync::Arc;

/// Runs the whole suite.
pub async fn run<F, Fut>(factory: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = Arc<dyn Files>>,
{
    each_mode_opens_what_it_says(&*factory().await).await;
    names_are_listed_sorted(&*factory().await).await;
    only_plain_names_are_names(&*factory().await).await;
    a_rename_replaces_the_other_file(&*factory().await).await;
    removing_a_missing_name_is_fine(&*factory().await).await;
    parts_are_written_one_after_another(&*factory().await).await;
    a_read_is_short_only_at_the_end(&*factory().await).await;
    set_len_cuts_and_grows_with_zeros(&*factory().await).await;
    syncs_and_questions_succeed(&*factory().await).await;
    a_directory_has_one_owner(&*factory().await).await;
}

fn kind<T>(result: Result<T, IoError>) -> Option<IoKind> {
    result.err().map(|error| error.kind)
}

async fn create(files: &dyn Files, name: &str, content: &'static [u8]) -> Arc<dyn File> {
    let file = files.open(name, OpenMode::CreateNew).await.expect("a new name is free");
    file.write_at(0, &[Bytes::from_static(content)]).await.expect("a write succeeds");
    file
}

/// Returns all bytes of an open file.
async fn content(file: &dyn File) -> Bytes {
    let length = file.len().await.expect("a file has a length");
    let bytes = file.read_at(0, length as usize + 10).await.expect("a read succeeds");
    assert_eq!(bytes.len() as u64, length, "a read of everything returns everything");
    bytes
}

async fn names(files: &dyn Files) -> Vec<String> {
    files.list().await.expect("a listing succeeds")
}

async fn each_mode_opens_what_it_says(files: &dyn Files) {
    let missing = files.open("a", OpenMode::Existing).await;
    assert_eq!(kind(missing), Some(IoKind::NotFound), "a missing file is not made by `Existing`");
    assert_eq!(names(files).await, Vec::<String>::new(), "and leaves no name");
    let created = create(files, "a", b"content").await;
    let again = files.open("a", OpenMode::CreateNew).await;
    assert_eq!(kind(again), Some(IoKind::Exists), "`CreateNew` refuses a taken name");
    for mode in [OpenMode::Existing, OpenMode::CreateOrOpen] {
        let opened = files.open("a", mode).await.expect("a file that exists opens");
        assert_eq!(content(&*opened).await, "content", "{mode:?} keeps the content");
    }
    let other = files.open("b", OpenMode::CreateOrOpen).await.expect("either creates");
    assert_eq!(content(&*other).await, "", "a new file is empty");
    other.write_at(0, &[Bytes::from_static(b"other")]).await.expect("it can be written");
    assert_eq!(content(&*created).await, "content", "files do not share content");
}

async fn names_are_listed_sorted(files: &dyn Files) {
    for name in ["spill-0002.hrl", "a", "spill-0001.hrl", "B", "10", "9"] {
        create(files, name, b"").await;
    }
    assert_eq!(names(files).await, ["10", "9", "B", "a", "spill-0001.hrl", "spill-0002.hrl"]);
}

async fn only_plain_names_are_names(files: &dyn Files) {
    create(files, "inside", b"").await;
    for name in ["", ".", "..", "../outside", "inside/", "a/b", "/tmp"] {
        let opened = files.open(name, OpenMode::CreateOrOpen).await;
        assert_eq!(kind(opened), Some(IoKind::Unsupported), "{name:?} is no plain name");
        assert_eq!(kind(files.rename("inside", name).await), Some(IoKind::Unsupported), "{name:?} as target");
        assert_eq!(kind(files.remove(name).await), Some(IoKind::Unsupported), "{name:?} to remove");
    }
    assert_eq!(names(files).await, ["inside"]);
}

async fn a_rename_replaces_the_other_file(files: &dyn Files) {
    create(files, "new", b"new content").await;
    let replaced = create(files, "state", b"old").await;
    files.rename("new", "state").await.expect("a rename over a file succeeds");
    assert_eq!(names(files).await, ["state"], "the old name is gone");
    let state = files.open("state", OpenMode::Existing).await.expect("the target exists");
    assert_eq!(content(&*state).await, "new content", "the target is the renamed file");
    assert_eq!(content(&*replaced).await, "old", "who had the replaced file open still reads it");
    state.write_at(0, &[Bytes::from_static(b"NEW")]).await.expect("a renamed file can be written");
    assert_eq!(content(&*state).await, "NEW content");
    let missing = files.rename("new", "state").await;
    assert_eq!(kind(missing), Some(IoKind::NotFound), "a missing name cannot be renamed");
    assert_eq!(names(files).await, ["state"], "and its target stays");
}

async fn removing_a_missing_name_is_fine(files: &dyn Files) {
    files.remove("a").await.expect("removing a missing name is fine");
    let open = create(files, "a", b"x").await;
    files.remove("a").await.expect("a file can be removed");
    assert_eq!(names(files).await, Vec::<String>::new());
    assert_eq!(content(&*open).await, "x", "who had the removed file open still reads it");
    let fresh = create(files, "a", b"").await;
    assert_eq!(content(&*fresh).await, "", "a name that is used again starts empty");
}

async fn parts_are_written_one_after_another(files: &dyn Files) {
    let file = create(files, "log", b"").await;
    // More parts than one system call takes, some empty, of uneven sizes.
    let parts: Vec<Bytes> = (0..1500usize).map(|n| Bytes::from(vec![n as u8; n % 397])).collect();
    let whole = parts.concat();
    file.write_at(3, &parts).await.expect("a write of many parts succeeds");
    let found = content(&*file).await;
    assert!(found[..3] == [0; 3] && found[3..] == whole[..], "the parts follow each other");
    file.write_at(1, &[Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]).await.expect("an overwrite");
    let found = content(&*file).await;
    assert_eq!(found[..5], *b"\0abcd", "an overwrite starts where it was told");
    assert!(found[5..] == whole[2..], "and leaves the rest alone");
    let length = file.len().await.expect("a file has a length");
    file.write_at(length + 100, &[]).await.expect("a write of nothing succeeds");
    file.write_at(length + 100, &[Bytes::new()]).await.expect("a write of an empty part succeeds");
    assert_eq!(file.len().await, Ok(length), "a write of nothing does not grow the file");
    file.write_at(length + 1000, &[Bytes::from_static(b"!")]).await.expect("a write beyond the end succeeds");
    let gap = file.read_at(length, 1001).await.expect("a read succeeds");
    assert!(gap[..1000] == [0; 1000] && gap[1000..] == *b"!", "a gap reads as zeros");
}

async fn a_read_is_short_only_at_the_end(files: &dyn Files) {
    let file = create(files, "ten", b"0123456789").await;
    for (offset, length, want) in [
        (0, 10, "0123456789"),
        (0, 4, "0123"),
        (7, 3, "789"),
        (7, 9, "789"),
        (10, 5, ""),
        (99, 5, ""),
        (3, 0, ""),
    ] {
        assert_eq!(file.read_at(offset, length).await.expect("a read succeeds"), want, "{offset}+{length}");
    }
}

async fn set_len_cuts_and_grows_with_zeros(files: &dyn Files) {
    let file = create(files, "a", b"0123456789").await;
    file.set_len(4).await.expect("a cut succeeds");
    assert_eq!(content(&*file).await, "0123");
    file.set_len(8).await.expect("growing succeeds");
    assert_eq!(content(&*file).await, &b"0123\0\0\0\0"[..], "what was cut off does not come back");
    file.set_len(0).await.expect("a cut to nothing succeeds");
    assert_eq!(content(&*file).await, "");
    file.set_len(1 << 20).await.expect("growing succeeds");
    let found = content(&*file).await;
    assert!(found.len() == 1 << 20 && found.iter().all(|byte| *byte == 0), "growth is zeros");
}

async fn syncs_and_questions_succeed(files: &dyn Files) {
    let file = create(files, "a", b"x").await;
    file.sync().await.expect("a sync succeeds");
    file.sync().await.expect("a sync of nothing new succeeds");
    files.sync_dir().await.expect("a sync of the directory succeeds");
    let free = files.free_bytes().await.expect("the question for space succeeds");
    assert_ne!(free, Some(0), "a directory that takes writes has space");
    assert_eq!(content(&*file).await, "x", "a sync changes nothing");
}

async fn a_directory_has_one_owner(files: &dyn Files) {
    let owner = files.lock().await.expect("a free directory can be locked");
    assert_eq!(kind(files.lock().await), Some(IoKind::Busy), "a directory has one owner");
    create(files, "a", b"the owner works on").await;
    drop(owner);
    let next = files.lock().await.expect("a directory is free once its owner is gone");
    assert_eq!(kind(files.lock().await), Some(IoKind::Busy), "the next owner is the only one");
    drop(next);
}
