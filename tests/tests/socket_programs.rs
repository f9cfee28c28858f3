//! Programs that talk over sockets, and what signals and debuggers do to them meanwhile.

use std::fs;

use umvu_tests::{behaviours, program, works, Runner};

behaviours! {
    from_outside at EVERYWHERE {
        a_signal_ends_a_waiting_connect_with_eintr,
        a_restarting_signal_lets_the_connect_go_on_waiting,
        a_connect_changes_no_register_but_the_result,
        a_traced_program_connects,
        a_file_of_the_host_gives_way_to_a_socket,
        a_server_of_http_listens_on_a_path,
        tmux_finds_its_server,
        ssh_agent_answers_over_its_socket,
        loopback_tcp_works,
    }
}

/// Python that listens on `socket` and says what the first client sends.
const LISTEN: &str = "import os, socket, sys\n\
    s = socket.socket(socket.AF_UNIX); s.bind('socket'); s.listen()\n";

fn a_signal_ends_a_waiting_connect_with_eintr(r: &Runner) {
    assert_eq!(r.run([program("waiting_connect").as_os_str(), "interrupt".as_ref()]).line(), "EINTR");
}

fn a_restarting_signal_lets_the_connect_go_on_waiting(r: &Runner) {
    let finished = r.run([program("waiting_connect").as_os_str(), "restart".as_ref()]);
    assert_eq!(finished.line(), "connected after the signal");
}

fn a_connect_changes_no_register_but_the_result(r: &Runner) {
    assert_eq!(r.run([program("waiting_connect").as_os_str(), "registers".as_ref()]).line(), "unchanged");
}

fn a_traced_program_connects(r: &Runner) {
    let client = "import socket; c = socket.socket(socket.AF_UNIX); c.connect('socket'); c.sendall(b'hello')";
    let script = format!(
        "{LISTEN}import subprocess\n\
        subprocess.run(['strace', '-o', '/dev/null', sys.executable, '-c', sys.argv[1]], check=True)\n\
        print(s.accept()[0].recv(9).decode())"
    );
    assert_eq!(r.run(["python3", "-c", &script, client]).line(), "hello");
}

fn a_file_of_the_host_gives_way_to_a_socket(r: &Runner) {
    works(fs::create_dir(r.dir().join("dir")));
    works(fs::write(r.dir().join("dir/socket"), b"of the host"));
    let script = "import os, socket\n\
        os.remove('dir/socket')\n\
        s = socket.socket(socket.AF_UNIX); s.bind('dir/socket'); s.listen()\n\
        c = socket.socket(socket.AF_UNIX); c.connect('dir/socket')\n\
        print(os.listdir('dir'), s.getsockname(), c.getpeername())";
    assert_eq!(r.run(["python3", "-c", script]).line(), "['socket'] dir/socket dir/socket");
    let is_left = fs::read(r.dir().join("dir/socket")).is_ok_and(|text| text == b"of the host");
    assert_eq!(is_left, r.place().is_union());
}

fn a_server_of_http_listens_on_a_path(r: &Runner) {
    let script = "import http.client, http.server, socket, socketserver, threading\n\
        class S(socketserver.ThreadingMixIn, socketserver.UnixStreamServer): daemon_threads = True\n\
        class H(http.server.BaseHTTPRequestHandler):\n\
        \x20   def do_GET(self):\n\
        \x20       self.send_response(200); self.end_headers(); self.wfile.write(self.path.encode())\n\
        \x20   def address_string(self): return 'guest'\n\
        \x20   def log_message(self, *_): pass\n\
        s = S('http', H); threading.Thread(target=s.serve_forever, daemon=True).start()\n\
        for i in range(20):\n\
        \x20   c = http.client.HTTPConnection('localhost'); c.sock = socket.socket(socket.AF_UNIX)\n\
        \x20   c.sock.connect('http'); c.request('GET', f'/{i}'); got = c.getresponse().read().decode()\n\
        \x20   assert got == f'/{i}', got\n\
        print('served')";
    assert_eq!(r.run(["python3", "-c", script]).line(), "served");
}

fn tmux_finds_its_server(r: &Runner) {
    let script = "export TMUX_TMPDIR=$(mktemp -d /tmp/umvu-tests.XXXXXX); trap 'rm -r $TMUX_TMPDIR' EXIT
        tmux -f /dev/null new-session -d -s there cat; tmux list-sessions -F '#S'; tmux kill-server";
    assert_eq!(r.bash(script).line(), "there");
}

fn ssh_agent_answers_over_its_socket(r: &Runner) {
    // ssh-agent makes itself undumpable and its socket lives in a directory of its own.
    let script = "mkdir -m 700 tmp; export TMPDIR=$PWD/tmp
        eval $(ssh-agent -a agent.sock) >/dev/null; trap 'ssh-agent -k >/dev/null' EXIT
        ssh-keygen -q -t ed25519 -N '' -f key; ssh-add -q key; ssh-add -l | cut -d' ' -f4";
    assert_eq!(r.bash(script).line(), "(ED25519)");
}

fn loopback_tcp_works(r: &Runner) {
    let script = "import socket, threading\n\
        s = socket.create_server(('127.0.0.1', 0))\n\
        c = socket.create_connection(s.getsockname())\n\
        p, _ = s.accept(); c.sendall(b'hello'); print(p.recv(5).decode())";
    assert_eq!(r.run(["python3", "-c", script]).line(), "hello");
}
