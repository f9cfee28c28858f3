//! Ports that have other numbers in a view than on the host: the module `ports`, and the option --port.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use umvu_tests::{behaviours, program, program_for_i386, Finished, Linking, Runner};

behaviours! {
    from_outside at ORDINARY {
        a_port_of_the_view_has_another_number_outside,
        a_port_of_the_host_is_reached_by_its_number_in_the_view,
        views_may_be_stacked,
        ports_are_given_back,
        ports_that_make_no_sense_are_told,
    }
    from_outside at PLAIN if umvu_tests::program::has_i386_compiler {
        programs_of_32_bits_find_them_too,
    }
}

/// A port of the host that no other test uses: tests run as processes, each with numbers of its own, below the ports that
/// the kernel gives to who asks for any.
fn port(number: u32) -> u32 {
    10_000 + (std::process::id() * 2 + number) % 20_000
}

/// Runs umvu in the place: on the host, or stacked on a view.
fn umvu(r: &Runner, words: &[&str]) -> Finished {
    let line: Vec<OsString> = ["umvu", "-N"].iter().chain(words).map(Into::into).collect();
    r.run(line)
}

fn holds(r: &Runner, program: &Path) {
    let map = format!("{}:80", port(0));
    let program = program.to_str().expect("a path");
    for words in [&["-p", &map][..], &["-m", "unrealuid", "-p", &map]] {
        assert_eq!(umvu(r, &[words, &[program, "80"]].concat()).line(), "so it is", "{words:?}");
    }
}

fn a_port_of_the_view_has_another_number_outside(r: &Runner) {
    holds(r, &program("ports"));
}

fn programs_of_32_bits_find_them_too(r: &Runner) {
    holds(r, &program_for_i386("ports", Linking::Dynamic));
}

fn a_port_of_the_host_is_reached_by_its_number_in_the_view(r: &Runner) {
    let host = u16::try_from(port(0)).expect("a port");
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, host)).expect("a port of the host");
    let serving = std::thread::spawn(move || {
        let (mut peer, _) = server.accept().expect("a client");
        let mut asked = [0; 4];
        peer.read_exact(&mut asked).expect("a question");
        peer.write_all(b"answer").expect("an answer");
        asked
    });
    let script = "exec 3<>/dev/tcp/127.0.0.1/7 && printf ask. >&3 && cat <&3";
    let told = umvu(r, &["--port", &format!("{host}:7"), "bash", "-c", script]);
    assert_eq!(told.line(), "answer");
    assert_eq!(&serving.join().expect("a server"), b"ask.");
}

fn views_may_be_stacked(r: &Runner) {
    let (outer, inner) = (format!("{}:80", port(0)), format!("{}:81", port(1)));
    let program = program("ports");
    let program = program.to_str().expect("a path");
    for known in ["80", "81"] {
        assert_eq!(umvu(r, &["-p", &outer, "umvu", "-N", "-p", &inner, program, known]).line(), "so it is", "{known}");
    }
}

fn ports_are_given_back(r: &Runner) {
    let bind = "import socket; print(socket.socket().connect_ex(('127.0.0.1', 7)) and 'refused')";
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port(0)).expect("a port"))).expect("a port");
    let module = format!("ports,{}:7", port(0));
    let script =
        format!(r#"vu_insmod {module} && python3 -c "$0" && vu_rmmod ports && python3 -c "$0"; vu_lsmod | wc -l"#);
    assert_eq!(umvu(r, &["sh", "-c", &script, bind]).line(), "0\nrefused\n0");
    drop(server);
}

fn ports_that_make_no_sense_are_told(r: &Runner) {
    for (words, why, status) in [
        (&["-p", "80"][..], "--port 80: needs two ports, HOST:GUEST", 2),
        (&["-p", "8080:80", "-p", "8081:80"], "ports: option '8081:80': GUEST is taken by 8080:80", 1),
        (&["-m", "ports,x:80"], "ports: option 'x:80': needs two ports, HOST:GUEST", 1),
    ] {
        let told = umvu(r, &[words, &["touch", "ran"]].concat());
        let message = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(told.shell_status() == status && message.contains(why), "{told}");
    }
    assert!(!r.dir().join("ran").exists());
}
