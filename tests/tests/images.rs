//! Roots to enter: directories, archives and images; changes go to an upper layer or nowhere, and what is wrong with one
//! is told before anything runs.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use umvu_tests::archive::{docker_save, layers, oci_layout, sha256, Tar};
use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at ORDINARY {
        a_root_is_entered_and_its_status_is_the_commands,
        every_form_of_image_is_a_root,
        an_image_says_how_it_is_run,
        options_win_over_the_image,
        changes_go_where_they_are_wanted,
        what_belongs_in_a_root_is_there,
        a_bare_root_has_nothing_more,
        directories_of_the_host_are_shown,
        a_directory_is_a_root,
        the_own_root_can_be_thrown_away,
        identities_are_as_wanted,
        a_missing_command_of_a_root_is_127,
        a_broken_source_is_told_in_one_line,
        a_damaged_image_is_told_in_one_line,
        an_image_with_another_content_than_its_digests_say_is_refused,
        options_that_make_no_sense_are_told,
    }
}

/// Runs umvu in the place: on the host, or stacked on a view.
fn umvu(r: &Runner, words: &[&str]) -> Finished {
    let line: Vec<OsString> = ["umvu", "-N"].iter().chain(words).map(Into::into).collect();
    r.run(line)
}

/// Writes an archive of a root for busybox, as `root.tar` in the working directory.
fn root(r: &Runner) {
    fs::write(r.dir().join("root.tar"), &layers()[0]).expect("an archive");
}

fn a_root_is_entered_and_its_status_is_the_commands(r: &Runner) {
    root(r);
    let told =
        umvu(r, &["-r", "root.tar", "sh", "-c", "id; pwd; cat /etc/passwd | busybox wc -l; ls /; echo $HOME $USER"])
            .line();
    assert_eq!(
        told,
        "uid=0(root) gid=0(root) groups=0(root)\n/\n2\nbin\ndev\netc\nlib\nopt\nproc\nsys\ntmp\nusr\n/root root"
    );
    assert_eq!(umvu(r, &["-r", "root.tar", "sh", "-c", "exit 7"]).shell_status(), 7);
    assert_eq!(umvu(r, &["-r", "root.tar", "sh", "-c", "kill -TERM $$"]).shell_status(), 143);
    let with_input = r.run_with_input(["umvu", "-N", "-r", "root.tar", "cat"], b"piped\n");
    assert_eq!(with_input.line(), "piped");
    // Without a command it is a shell.
    assert_eq!(r.run_with_input(["umvu", "-N", "-r", "root.tar"], b"busybox echo $0\n").line(), "/bin/sh");
}

const SAYS: &str = "green\n/\nuid=12(guest) gid=13(guest) groups=13(guest),20(users)\netc:\nchanged\ngroup\npasswd\nresolv.conf\n\nopt/old:\nthree\nsecond\nhere";

fn every_form_of_image_is_a_root(r: &Runner) {
    docker_save(&r.dir().join("docker.tar"));
    let [first, second] = layers();
    oci_layout(&r.dir().join("layout"), [&first, &second]);
    fs::write(r.dir().join("first"), &first).expect("a layer");
    fs::write(r.dir().join("second"), &second).expect("a layer");
    r.outside_text(&["bash", "-euc", "gzip -1k docker.tar first && zstd -q second"]);
    let packed = |name| fs::read(r.dir().join(name)).expect("a layer");
    oci_layout(&r.dir().join("packed"), [&packed("first.gz"), &packed("second.zst")]);
    r.outside_text(&["tar", "-C", "packed", "-cf", "oci.tar", "."]);
    for source in ["docker.tar", "docker.tar.gz", "oci.tar", "layout"] {
        assert_eq!(umvu(r, &["-r", source]).line(), SAYS, "{source}");
    }
    assert_eq!(umvu(r, &["-r", "docker.tar", "--image", "demo/busybox"]).line(), SAYS);
    let other = umvu(r, &["-r", "docker.tar", "--image", "alpine"]);
    assert_eq!(refusal(&other), "umvu: docker.tar: has no image 'alpine', but demo/busybox:1");
}

fn an_image_says_how_it_is_run(r: &Runner) {
    docker_save(&r.dir().join("i.tar"));
    assert_eq!(umvu(r, &["-r", "i.tar"]).line(), SAYS);
    let told = umvu(
        r,
        &["-r", "i.tar", "sh", "-c", "id -u; echo $COLOUR $PATH $HOME $USER; touch /tmp/x && stat -c %u /tmp/x"],
    );
    assert_eq!(told.line(), "12\ngreen /bin /home/guest guest\n12");
}

fn options_win_over_the_image(r: &Runner) {
    docker_save(&r.dir().join("i.tar"));
    let script = "pwd; id -u; id -g; echo $COLOUR $OTHER";
    let words =
        ["-r", "i.tar", "-w", "/usr/lib", "-u", "0:20", "-e", "COLOUR=red", "-e", "OTHER=a=b", "sh", "-c", script];
    assert_eq!(umvu(r, &words).line(), "/usr/lib\n0\n20\nred a=b");
    assert_eq!(umvu(r, &["-r", "i.tar", "-i", "77:88", "sh", "-c", "id"]).line(), "uid=77 gid=88 groups=88");
}

fn changes_go_where_they_are_wanted(r: &Runner) {
    root(r);
    let sum = r.outside_text(&["sha256sum", "root.tar"]);
    let change = "touch /new /etc/n && rm /etc/gone && echo x > /etc/changed && busybox chown 5:6 /new && busybox mknod /node c 1 3; ls -A /etc; stat -c %u:%g /new";
    let fails = umvu(r, &["-r", "root.tar", "sh", "-c", "touch /new 2>&1 || echo no"]).line();
    assert_eq!(fails, "touch: /new: Read-only file system\nno");
    let changed = "changed\ngroup\nn\npasswd\nresolv.conf\n5:6";
    assert_eq!(umvu(r, &["-r", "root.tar", "--throw-away", "sh", "-c", change]).line(), changed);
    let after = "ls -A /etc; ls /new; true";
    let untouched = umvu(r, &["-r", "root.tar", "--throw-away", "sh", "-c", after]);
    assert_eq!(untouched.line(), "changed\ngone\ngroup\npasswd\nresolv.conf");
    fs::create_dir(r.dir().join("up")).expect("an upper directory");
    assert_eq!(umvu(r, &["-r", "root.tar", "--upper", "up", "sh", "-c", change]).line(), changed);
    let again = umvu(
        r,
        &[
            "-r",
            "root.tar",
            "--upper",
            "up",
            "sh",
            "-c",
            "ls -A /etc; stat -c %u:%g /new; cat /etc/changed; busybox stat -c %F /node",
        ],
    );
    assert_eq!(again.line(), format!("{changed}\nx\ncharacter special file"));
    assert_eq!(r.outside_text(&["sha256sum", "root.tar"]), sum);
}

fn what_belongs_in_a_root_is_there(r: &Runner) {
    root(r);
    let script = "readlink /proc/self/exe; ls -d /sys/kernel; echo lost > /dev/null; stat -c '%a %u' /tmp; touch /tmp/a; ls -A /tmp; busybox cmp /etc/resolv.conf /mine && echo same";
    let told = umvu(r, &["-r", "root.tar", "-b", "/etc/resolv.conf:/mine", "sh", "-c", script]).line();
    assert_eq!(told, "/bin/busybox\n/sys/kernel\n1777 0\na\nsame");
}

fn a_bare_root_has_nothing_more(r: &Runner) {
    root(r);
    assert_eq!(umvu(r, &["-r", "root.tar", "--bare", "ls", "/"]).line(), "bin\netc\nlib\nopt\nusr");
}

fn directories_of_the_host_are_shown(r: &Runner) {
    root(r);
    r.outside_text(&["bash", "-euc", "mkdir here 'a:b' && echo x > here/f && echo y > 'a:b/g'"]);
    let here = r.dir().join("here");
    let here = here.to_str().expect("a path");
    let script = "cat /mnt/f /c/g /one; echo new > /mnt/f; echo z > /c/n; touch /one; pwd";
    let words =
        ["-r", "root.tar", "-b", "here:/mnt:ro", "-b", "a\\:b:/c", "-b", "here/f:/one:ro", "-b", "here", "-w", here];
    let told = umvu(r, &[&words[..], &["sh", "-c", script]].concat());
    let says = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&told.stdout), format!("x\ny\nx\n{here}\n"), "{told}");
    assert_eq!(says.matches("Read-only file system").count(), 2, "{says}");
    assert_eq!(r.outside_text(&["cat", "a:b/n"]), "z");
    assert_eq!(umvu(r, &["-b", "here:/media", "cat", "/media/f"]).line(), "x");
    let words = ["-r", "root.tar", "-b", "missing:/mnt", "ls"];
    assert_eq!(refusal(&umvu(r, &words)), "umvu: missing: no such file or directory");
}

fn a_directory_is_a_root(r: &Runner) {
    root(r);
    r.outside_text(&["bash", "-euc", "mkdir dir up && tar -C dir -xf root.tar"]);
    let told = umvu(r, &["-r", "dir", "sh", "-c", "id -u; echo x > /made; stat -c %u /made; readlink /proc/self/exe"]);
    assert_eq!(told.line(), "0\n0\n/bin/busybox");
    assert_eq!(r.outside_text(&["cat", "dir/made"]), "x");
    let script = "busybox chown 3:4 /made; stat -c %u:%g /made; rm -r /opt; ls /";
    let changed = "3:4\nbin\ndev\netc\nlib\nmade\nproc\nsys\ntmp\nusr";
    assert_eq!(umvu(r, &["-r", "dir", "--upper", "up", "sh", "-c", script]).line(), changed);
    assert_eq!(umvu(r, &["-r", "dir", "--upper", "up", "sh", "-c", "stat -c %u:%g /made"]).line(), "3:4");
    assert_eq!(r.outside_text(&["ls", "dir/opt/old"]), "one\ntwo");
}

fn the_own_root_can_be_thrown_away(r: &Runner) {
    let script = "pwd; rm -rf /usr/share/doc; ls -d /usr/share/doc 2>/dev/null; echo x > kept; cat kept; id -u";
    let told = umvu(r, &["-r", "/", "--throw-away", "sh", "-c", script]).line();
    assert_eq!(told, format!("{}\nx\n0", r.dir().display()));
    assert!(Path::new("/usr/share/doc").exists() && !r.dir().join("kept").exists());
}

fn identities_are_as_wanted(r: &Runner) {
    root(r);
    let own = nix::unistd::geteuid().to_string();
    assert_eq!(umvu(r, &["-r", "root.tar", "--keep-ids", "id", "-u"]).line(), own);
    assert_eq!(umvu(r, &["-0", "id", "-u"]).line(), "0");
    assert_eq!(umvu(r, &["-r", "root.tar", "-u", "guest", "id", "-u"]).line(), "12");
    let nobody = umvu(r, &["-r", "root.tar", "-u", "nosuch", "id", "-u"]);
    assert_eq!(refusal(&nobody), "umvu: nosuch: no such user");
    // A list of users without an end is not read.
    let tar = Tar::default().entry(b'6', "etc/passwd", "", b"").end();
    fs::write(r.dir().join("fifo.tar"), tar).expect("an archive");
    assert_eq!(refusal(&umvu(r, &["-r", "fifo.tar", "id"])), "umvu: /etc/passwd: not a regular file");
}

/// Checks that a command has failed before it began, and returns the one line that says why.
#[track_caller]
fn refusal(finished: &Finished) -> String {
    let message = String::from_utf8_lossy(&finished.stderr).into_owned();
    assert!(finished.shell_status() != 0 && finished.stdout.is_empty(), "{finished}");
    assert_eq!(message.lines().count(), 1, "{finished}");
    message.trim_end().to_owned()
}

fn a_missing_command_of_a_root_is_127(r: &Runner) {
    root(r);
    let missing = umvu(r, &["-r", "root.tar", "nosuch"]);
    assert_eq!((refusal(&missing).as_str(), missing.shell_status()), ("umvu: nosuch: command not found", 127));
    let missing = umvu(r, &["-r", "root.tar", "/bin/nosuch"]);
    assert_eq!(
        (refusal(&missing).as_str(), missing.shell_status()),
        ("umvu: /bin/nosuch: no such file or directory", 127)
    );
    let directory = umvu(r, &["-r", "root.tar", "/etc"]);
    assert_eq!((refusal(&directory).as_str(), directory.shell_status()), ("umvu: /etc: permission denied", 126));
    // What only the host has is not there.
    let host = umvu(r, &["-r", "root.tar", "/usr/bin/env"]);
    assert_eq!(host.shell_status(), 127);
}

fn a_broken_source_is_told_in_one_line(r: &Runner) {
    let good = Tar::default().file("a", &[b'x'; 2000]).file("b", b"y").end();
    let mut flipped = good.clone();
    flipped[512 + 2048 + 10] ^= 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("nothing", Vec::new(), "not a tar archive"),
        ("text", b"hello\n".repeat(300), "not a tar archive"),
        ("cut", good[..1000].to_vec(), "entry 'a': truncated: 488 of 2000 bytes are there"),
        ("cut-header", good[..2700].to_vec(), "at byte 2560: truncated: a part of a header is all that is left"),
        ("flipped", flipped, "at byte 2560: damaged: the checksum is wrong"),
        ("up", Tar::default().file("a/../../x", b"").end(), "entry 'a/../../x': climbs out of the archive with '..'"),
        (
            "out",
            Tar::default().symlink("a", "../..").file("a/x", b"").end(),
            "entry 'a/x': its parent 'a' is a symbolic link that climbs out of the archive",
        ),
        (
            "etc",
            Tar::default().symlink("a", "/etc").file("a/passwd", b"").end(),
            "entry 'a/passwd': its parent 'a' is a symbolic link that leads nowhere",
        ),
        (
            "loop",
            Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"").end(),
            "entry 'a/x': its parent 'a' is a symbolic link that leads to no end",
        ),
        (
            "file",
            Tar::default().file("a", b"").file("a/x", b"").end(),
            "entry 'a/x': its parent 'a' is not a directory",
        ),
        (
            "hard",
            Tar::default().entry(b'1', "h", "/etc/passwd", b"").end(),
            "entry 'h': hard link to '/etc/passwd', which is not there",
        ),
        (
            "hard-up",
            Tar::default().entry(b'1', "h", "../x", b"").end(),
            "entry 'h': hard link to '../x', which climbs out of the archive with '..'",
        ),
        (
            "hard-dir",
            Tar::default().directory("d/").entry(b'1', "h", "d", b"").end(),
            "entry 'h': hard link to 'd', a directory",
        ),
        (
            "pax",
            Tar::default().entry(b'x', "h", "", b"99 path=a\n").file("a", b"").end(),
            "entry 'h': a broken extended header",
        ),
        ("volume", Tar::default().entry(b'M', "m", "", b"").end(), "entry 'm': continued from another volume"),
        (
            "newline",
            Tar::default().file("a\nb/../c", b"").end(),
            "entry 'a\\nb/../c': climbs out of the archive with '..'",
        ),
    ];
    for (name, bytes, why) in cases {
        fs::write(r.dir().join(name), bytes).expect("an archive");
        let told = umvu(r, &["-r", name, "touch", "ran"]);
        let separator = ": ";
        assert_eq!(refusal(&told), format!("umvu: {name}{separator}{why}"));
        assert_eq!(told.shell_status(), 1, "{name}");
    }
    assert!(!r.dir().join("ran").exists());
    assert_eq!(refusal(&umvu(r, &["-r", "nosuch", "ls"])), "umvu: nosuch: no such file or directory");
    assert_eq!(refusal(&umvu(r, &["-r", "/dev/null", "ls"])), "umvu: /dev/null: neither a file nor a directory");
    r.outside_text(&["bash", "-euc", "head -c 100000 /dev/urandom | gzip > g; head -c 50000 g > cut.gz; head -c 40 g > c; tail -c +41 g | tr a b >> c"]);
    assert!(refusal(&umvu(r, &["-r", "cut.gz", "ls"])).starts_with("umvu: cut.gz: damaged gzip data: "));
    assert!(refusal(&umvu(r, &["-r", "c", "ls"])).starts_with("umvu: c: damaged gzip data: "));
}

fn a_damaged_image_is_told_in_one_line(r: &Runner) {
    let archive = |files: &[(&str, &str)]| {
        files.iter().fold(Tar::default(), |tar, (name, text)| tar.file(name, text.as_bytes())).end()
    };
    let manifest = r#"[{"Config":"c","Layers":["l"]}]"#;
    let index = r#"{"manifests":[{"digest":"sha256:11","size":2}]}"#;
    let empty = sha256(b"{}");
    let cases = [
        (archive(&[("manifest.json", "[{")]), "'manifest.json': EOF while parsing"),
        (archive(&[("manifest.json", "[]")]), "has no image"),
        (archive(&[("manifest.json", manifest)]), "'c': is missing"),
        (archive(&[("manifest.json", manifest), ("c", "{}")]), "'l': is missing"),
        (archive(&[("manifest.json", manifest), ("c", "{}"), ("l", "text")]), "i: l: not a tar archive"),
        (archive(&[("index.json", index)]), "'blobs/sha256/11': is missing"),
        (
            archive(&[("index.json", index), ("blobs/sha256/11", "{} ")]),
            "'blobs/sha256/11': is 3 bytes long, and should have 2",
        ),
        (archive(&[("index.json", &index.replace("sha256:11", "sha256:../../x"))]), "'sha256:../../x': is no digest"),
        (
            archive(&[("index.json", index), ("blobs/sha256/11", "{}")]),
            "'blobs/sha256/11': damaged: its digest is sha256:",
        ),
        (
            archive(&[("index.json", &index.replace("11", &empty)), (&format!("blobs/sha256/{empty}"), "{}")]),
            "has no image",
        ),
        (
            archive(&[("index.json", &index.replace("sha256:11", "md5:11")), ("blobs/md5/11", "{}")]),
            "digests of md5 are not known",
        ),
        (
            archive(&[("manifest.json", manifest), ("c", r#"{"rootfs":{"diff_ids":[]}}"#), ("l", "text")]),
            "'c': has digests of 0 layers, and the image has 1",
        ),
        (
            archive(&[("manifest.json", &manifest.replace(r#""l""#, r#""../../etc/passwd""#)), ("c", "{}")]),
            "'../../etc/passwd': is missing",
        ),
    ];
    for (bytes, why) in cases {
        fs::write(r.dir().join("i"), bytes).expect("an image");
        let told = umvu(r, &["-r", "i", "touch", "ran"]);
        let line = refusal(&told);
        assert!(line.starts_with("umvu: i: ") && line.contains(why), "{line}");
    }
    assert!(!r.dir().join("ran").exists());
}

fn an_image_with_another_content_than_its_digests_say_is_refused(r: &Runner) {
    let [first, second] = layers();
    let put = |bytes: &[u8]| fs::write(r.dir().join("i"), bytes).expect("an image");
    let refused = |source: &str| {
        let told = umvu(r, &["-r", source, "touch", "ran"]);
        assert_eq!(told.shell_status(), 1, "{told}");
        refusal(&told)
    };
    // A layer of `docker save`, which has the digests in its configuration.
    docker_save(&r.dir().join("i"));
    let good = fs::read(r.dir().join("i")).expect("an image");
    let changed = replaced(&good, b"second\n", b"sEcond\n");
    put(&changed);
    let other = sha256(&replaced(&second, b"second\n", b"sEcond\n"));
    let should = sha256(&second);
    assert_eq!(
        refused("i"),
        format!("umvu: i: b/layer.tar: damaged: its digest is sha256:{other}, and should be sha256:{should}")
    );
    // Its configuration, which is called by its digest.
    put(&replaced(&good, b"COLOUR=green", b"COLOUR=black"));
    let line = refused("i");
    assert!(line.contains(".json': damaged: its digest is sha256:"), "{line}");
    // A configuration for other layers.
    put(&replaced(&good, b"\"diff_ids\":", b"\"diff_IDs\":"));
    assert!(refused("i").contains("damaged: its digest is"));
    // Blobs of a layout: layer, configuration, manifest; told before any of it is unpacked.
    let layout = r.dir().join("layout");
    oci_layout(&layout, [&first, &second]);
    assert_eq!(umvu(r, &["-r", "layout"]).line(), SAYS);
    let blobs = fs::read_dir(layout.join("blobs/sha256")).expect("the blobs");
    for blob in blobs.map(|blob| blob.expect("a blob").path()) {
        let good = fs::read(&blob).expect("a blob");
        let mut bytes = good.clone();
        *bytes.last_mut().expect("a byte") ^= 1;
        fs::write(&blob, &bytes).expect("a blob");
        let name = blob.file_name().and_then(|name| name.to_str()).expect("a name");
        let why = format!("damaged: its digest is sha256:{}, and should be sha256:{name}", sha256(&bytes));
        assert_eq!(refused("layout"), format!("umvu: layout: 'blobs/sha256/{name}': {why}"));
        // By mount, too.
        let mount = ["umvu", "-N", "-m", "archive", "vumount", "-t", "image", "layout", "/mnt"];
        let told = r.run(mount.map(OsString::from).to_vec());
        assert!(refusal(&told).contains(&why), "{told}");
        fs::write(&blob, &good).expect("a blob");
    }
    assert_eq!(umvu(r, &["-r", "layout"]).line(), SAYS);
    assert!(!r.dir().join("ran").exists());
}

/// Replaces the one place where something stands, by as many bytes.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
    let [at] = places[..] else { panic!("{} places", places.len()) };
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn options_that_make_no_sense_are_told(r: &Runner) {
    root(r);
    fs::create_dir(r.dir().join("up")).expect("a directory");
    for (words, why) in [
        (&["-r", "root.tar", "--upper", "up", "--throw-away", "ls"][..], "cannot be used with"),
        (&["-r", "root.tar", "-b", "up:mnt", "ls"], "GUEST must begin with '/'"),
        (&["-r", "root.tar", "-b", ":/mnt", "ls"], "no path of the host"),
        (&["-r", "root.tar", "-e", "=x", "ls"], "no name"),
        (&["-r", "root.tar", "-u", "guest", "--keep-ids", "ls"], "cannot be used with"),
    ] {
        let told = umvu(r, words);
        let message = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.shell_status() == 2 && message.contains(why), "{told}");
    }
    assert_eq!(
        refusal(&umvu(r, &["-r", "root.tar", "-w", "/nosuch", "ls"])),
        "umvu: /nosuch: no such file or directory"
    );
    assert_eq!(
        refusal(&umvu(r, &["-r", "root.tar", "--upper", "nosuch", "ls"])),
        "umvu: nosuch: no such file or directory"
    );
}
