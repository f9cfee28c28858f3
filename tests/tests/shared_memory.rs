//! What processes share by name below `/dev/shm`, and by names that are no paths.

use umvu_tests::{behaviours, program, Runner};

behaviours! {
    from_outside at ANYONE {
        memory_semaphores_and_queues_are_shared_by_name,
        a_python_pool_shares_its_memory,
        dev_shm_is_a_directory_for_everybody,
        system_v_objects_are_found_by_their_keys,
    }
    from_outside at MOUNTING {
        system_v_objects_are_found_in_a_namespace,
    }
}

fn memory_semaphores_and_queues_are_shared_by_name(r: &Runner) {
    assert_eq!(r.run([program("posix_ipc")]).line(), "shared");
}

fn system_v_objects_are_found_by_their_keys(r: &Runner) {
    assert_eq!(r.run([program("system_v_ipc")]).line(), "shared");
}

fn system_v_objects_are_found_in_a_namespace(r: &Runner) {
    let program = program("system_v_ipc");
    let words = ["unshare".as_ref(), "--ipc".as_ref(), "--fork".as_ref(), program.as_os_str()];
    assert_eq!(r.run(words).line(), "shared");
}

fn a_python_pool_shares_its_memory(r: &Runner) {
    let script = "import multiprocessing as m
from multiprocessing.shared_memory import SharedMemory
def add(name, lock, n):
    memory = SharedMemory(name)
    with lock:
        memory.buf[0] += n
    memory.close()
if __name__ == '__main__':
    m.set_start_method('fork')
    memory, lock = SharedMemory(create=True, size=1), m.Lock()
    memory.buf[0] = 0
    all = [m.Process(target=add, args=(memory.name, lock, n)) for n in range(8)]
    [one.start() for one in all]; [one.join() for one in all]
    print(memory.buf[0], m.Pool(2).map(abs, [-1, -2]))
    memory.close(); memory.unlink()";
    assert_eq!(r.run(["python3", "-c", script]).line(), "28 [1, 2]");
}

fn dev_shm_is_a_directory_for_everybody(r: &Runner) {
    let script = "stat -c %a /dev/shm; d=$(mktemp -d /dev/shm/umvu-tests.XXXXXX); echo x > $d/file; cat $d/file
        ls -A $d; rm -r $d; test ! -e $d && echo gone";
    assert_eq!(r.bash(script).line(), "1777\nx\nfile\ngone");
}
