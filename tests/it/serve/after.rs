//! What becomes of files in watched folders.

use super::daemon::{Daemon, World};
use crate::receive::files_below;
use crate::support::ct::Ct;
use std::path::PathBuf;
use std::time::Duration;
use stunetd::config::{Accepts, After, Config, Destination, DestinationKind, Format};

/// A world whose watched folder is treated so, with a share that gets the results.
fn world(after: After) -> (World, PathBuf, PathBuf) {
    let mut world = World::new();
    let (share, moved) = (world.spool().with_file_name("share"), world.spool().with_file_name("moved"));
    let (path, to) = (share.clone(), moved.clone());
    world.configure = Box::new(move |config: &mut Config| {
        config.watch[0].after = after;
        config.watch[0].move_to = if after == After::Move { to.clone() } else { PathBuf::new() };
        let (kind, formats) = (DestinationKind::Folder, vec![Format::Seg]);
        config.destination = vec![Destination {
            name: "share".into(),
            kind,
            accepts: Accepts::Research,
            formats,
            path: path.clone(),
            ..Destination::default()
        }];
    });
    (world, share, moved)
}

#[test]
fn files_are_removed_once_the_results_are_where_they_belong_and_not_before() {
    let (world, share, _) = world(After::Delete);
    let daemon = Daemon::start(&world);
    let folder = world.incoming().join("a/b");
    std::fs::create_dir_all(&folder).expect("folders");
    Ct::new(1, 6).write(&folder);
    // Too short: it is refused, and stays for people to look at, as does the note.
    Ct::new(2, 2).write(&folder);
    std::fs::write(folder.join("note"), b"by hand").expect("file");
    daemon.next_result();
    daemon.passes("the share is away", || {
        daemon.metric("stunetd_delivery_attempts_total{destination=\"share\",result=\"unreachable\"}") > 3.0
    });
    assert_eq!(files_below(&world.incoming()).len(), 9);
    std::fs::create_dir(&share).expect("folder");
    daemon.passes("they are removed", || files_below(&world.incoming()).len() == 3);
    assert!(files_below(&folder).iter().all(|file| !file.to_string_lossy().contains("/1-")));
    // That they are gone is no news of the series.
    daemon.clock.advance(Duration::from_secs(3600));
    Ct::new(3, 6).write(&world.incoming());
    daemon.next_result();
    daemon.passes("the next leave too", || files_below(&world.incoming()).len() == 3);
    assert_eq!((world.engine.calls(), world.results().len()), (2, 2));
    daemon.end().expect("a clean end");
}

#[test]
fn files_are_moved_with_their_folders() {
    let (world, share, moved) = world(After::Move);
    std::fs::create_dir(share).expect("folder");
    let daemon = Daemon::start(&world);
    for (number, name) in [(1, "x"), (2, "x/y")] {
        std::fs::create_dir_all(world.incoming().join(name)).expect("folder");
        Ct::new(number, 5).write(&world.incoming().join(name));
    }
    daemon.passes("all have left", || files_below(&world.incoming()).is_empty());
    assert_eq!((files_below(&moved.join("x/y")).len(), files_below(&moved.join("x")).len()), (5, 10));
    assert_eq!(world.results().len(), 2);
    daemon.end().expect("a clean end");
}
