//! What people get wrong: each mistake has a message that names the object and ends in the cause, a
//! status that is not zero, and changes nothing.

use umvu_tests::{behaviours, Finished, Runner};

behaviours! {
    from_outside at PLAIN {
        tools_outside_a_view_say_so,
    }
    from_outside at INSIDE {
        an_unknown_module_is_named,
        a_module_loaded_twice_is_told,
        a_module_in_use_stays,
        an_unknown_file_system_type_is_named,
        an_unknown_mount_option_is_named,
        a_missing_layer_is_named,
        a_missing_mount_point_is_named,
        an_unmount_of_nothing_is_told,
        vusu_without_its_module_says_which,
        options_after_the_command_belong_to_it,
    }
    from_outside at NATIVE {
        an_unknown_option_of_umvu_is_a_usage_error,
        a_missing_command_of_umvu_is_127,
        a_command_of_umvu_without_permission_is_126,
        a_module_that_cannot_be_loaded_keeps_the_command_from_running,
        a_trace_file_that_cannot_be_written_is_named,
        an_unknown_debug_tag_keeps_the_command_from_running,
    }
}

/// Checks the shape of a refusal: `tool: object: cause` on standard error alone.
#[track_caller]
fn refused(finished: &Finished, tool: &str, words: &[&str]) {
    let message = String::from_utf8_lossy(&finished.stderr);
    assert!(!finished.status.success(), "succeeded: {finished}");
    let first = message.lines().next().unwrap_or_default();
    assert!(first.starts_with(&format!("{tool}: ")), "{finished}");
    for word in words {
        assert!(first.contains(word), "no {word:?} in {first:?}");
    }
    assert!(finished.stdout.is_empty(), "{finished}");
}

/// Runs a tool of this build outside of any view.
fn on_the_host(r: &Runner, line: &[&str]) -> Finished {
    let line: Vec<_> = line.iter().map(std::ffi::OsString::from).collect();
    umvu_tests::watch::finish(r.outside(&line), &[], umvu_tests::runner::HANG).expect("an end")
}

fn tools_outside_a_view_say_so(r: &Runner) {
    for line in [
        &["vu_insmod", "viewfs"][..],
        &["vu_rmmod", "viewfs"],
        &["vu_lsmod"],
        &["vumount", "-t", "viewfs", "-o", "bind", "/usr", "/mnt"],
        &["vuumount", "/mnt"],
        &["vusu"],
        &["vudebug", "+path"],
    ] {
        refused(&on_the_host(r, line), line[0], &["view"]);
    }
}

fn an_unknown_module_is_named(r: &Runner) {
    refused(&r.run(["vu_insmod", "nosuchmodule"]), "vu_insmod", &["nosuchmodule"]);
    refused(&r.run(["vu_rmmod", "nosuchmodule"]), "vu_rmmod", &["nosuchmodule"]);
}

fn a_module_loaded_twice_is_told(r: &Runner) {
    let finished = r.run(["sh", "-c", "vu_insmod viewfs 2>/dev/null; exec vu_insmod viewfs"]);
    refused(&finished, "vu_insmod", &["viewfs"]);
}

fn a_module_in_use_stays(r: &Runner) {
    let script = "vu_insmod viewfs 2>/dev/null; mkdir m; vumount -t viewfs -o bind /usr m; exec vu_rmmod viewfs";
    refused(&r.run(["sh", "-c", script]), "vu_rmmod", &["viewfs"]);
}

fn an_unknown_file_system_type_is_named(r: &Runner) {
    refused(&r.run(["vumount", "-t", "nosuchfs", "none", "/mnt"]), "vumount", &["nosuchfs"]);
}

fn an_unknown_mount_option_is_named(r: &Runner) {
    let script = "vu_insmod viewfs 2>/dev/null; mkdir m; exec vumount -t viewfs -o nosuchoption /usr m";
    refused(&r.run(["sh", "-c", script]), "vumount", &["nosuchoption"]);
}

fn a_missing_layer_is_named(r: &Runner) {
    let script = "vu_insmod viewfs 2>/dev/null; mkdir m; exec vumount -t viewfs -o bind missing-layer m";
    refused(&r.run(["sh", "-c", script]), "vumount", &["missing-layer"]);
    let script = "vu_insmod viewfs 2>/dev/null; mkdir -p m u; exec vumount -t viewfs -o lowerdir=missing-lower,upperdir=u none m";
    refused(&r.run(["sh", "-c", script]), "vumount", &["missing-lower"]);
}

fn a_missing_mount_point_is_named(r: &Runner) {
    let script = "vu_insmod viewfs 2>/dev/null; exec vumount -t viewfs -o bind /usr missing-point";
    refused(&r.run(["sh", "-c", script]), "vumount", &["missing-point"]);
}

fn an_unmount_of_nothing_is_told(r: &Runner) {
    refused(&r.run(["vuumount", "/usr/share"]), "vuumount", &["/usr/share"]);
}

fn vusu_without_its_module_says_which(r: &Runner) {
    refused(&r.run(["vusu", "-c", "id"]), "vusu", &["unrealuid"]);
}

fn options_after_the_command_belong_to_it(r: &Runner) {
    assert_eq!(r.run(["umvu", "echo", "-N", "--version"]).line(), "-N --version");
}

fn an_unknown_option_of_umvu_is_a_usage_error(r: &Runner) {
    let finished = r.run(["umvu", "--nosuchoption", "true"]);
    assert!(!finished.status.success());
    assert!(String::from_utf8_lossy(&finished.stderr).contains("--nosuchoption"), "{finished}");
}

fn a_missing_command_of_umvu_is_127(r: &Runner) {
    let finished = r.run(["umvu", "-N", "nosuchcommand"]);
    assert_eq!(finished.shell_status(), 127, "{finished}");
    refused(&finished, "umvu", &["nosuchcommand"]);
}

fn a_command_of_umvu_without_permission_is_126(r: &Runner) {
    std::fs::write(r.dir().join("file"), b"").expect("a file");
    let finished = r.run(["umvu", "-N", "./file"]);
    assert_eq!(finished.shell_status(), 126, "{finished}");
    refused(&finished, "umvu", &["./file"]);
}

fn a_module_that_cannot_be_loaded_keeps_the_command_from_running(r: &Runner) {
    refused(&r.run(["umvu", "-N", "-m", "nosuchmodule", "echo", "ran"]), "umvu", &["nosuchmodule"]);
    refused(&r.run(["umvu", "-N", "-m", "unrealuid,nosuchoption", "echo", "ran"]), "umvu", &["nosuchoption"]);
}

fn a_trace_file_that_cannot_be_written_is_named(r: &Runner) {
    let finished = r.run(["umvu", "-N", "--trace=missing/trace", "echo", "ran"]);
    refused(&finished, "umvu", &["missing/trace: no such file or directory"]);
}

fn an_unknown_debug_tag_keeps_the_command_from_running(r: &Runner) {
    refused(&r.run(["umvu", "-N", "-d", "z", "echo", "ran"]), "umvu", &["z: no such tag"]);
}
