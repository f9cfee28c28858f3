//! The rootless container of a talk, from an image as docker saves them to a shell that is alone in it.

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at CONTAINING {
        the_listing_runs_a_shell_that_is_root_first_and_alone,
    }
}

/// Packs a busybox as `docker save` does, unpacks it as the talk does, and leaves the tree in `rootfs`.
const ROOTFS: &str = r#"
    mkdir -p layer/bin layer/dev layer/proc layer/tmp image rootfs unpacked
    cp "$(command -v busybox)" layer/bin/
    touch layer/dev/null
    for name in sh ls cat mount hostname ps id sleep kill; do ln -s busybox layer/bin/$name; done
    tar -C layer -cf image/layer.tar .
    digest=$(sha256sum image/layer.tar | cut -d' ' -f1)
    mkdir image/$digest
    mv image/layer.tar image/$digest/layer.tar
    echo '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:'$digest'"]}}' >image/config.json
    echo '[{"Config":"config.json","RepoTags":["busybox:latest"],"Layers":["'$digest'/layer.tar"]}]' >image/manifest.json
    tar -C image -cf busybox.tar .

    tar -C unpacked -xf busybox.tar
    for layer in $(python3 -c 'import json; print(*json.load(open("unpacked/manifest.json"))[0]["Layers"])'); do
        tar -C rootfs -xf unpacked/$layer
    done
    export MVRC_ROOTFS=$PWD/rootfs MVRC_CONTAINER=$PWD/container
"#;

fn the_listing_runs_a_shell_that_is_root_first_and_alone(runner: &Runner) {
    let script = r#"
        before=$(hostname)
        mvrc sh -euc '
            hostname my-container; hostname
            id -u; echo $$
            ls /
            echo written >/tmp/file
            sleep 1000 &
            mount -t proc proc /proc
            set -- /proc/[0-9]*
            echo $# $1; read name </proc/1/comm; echo $name' 2>told
        sed "s/hostname \\[[^]]*\\]/hostname []/" told
        cat rootfs/tmp/file
        test "$(hostname)" = "$before"
        ls container"#;
    let told = runner.bash(&format!("{ROOTFS}{script}")).line();
    let euid = "euid [0] pid [1] hostname [] cwd [\"/\"]";
    assert_eq!(told, format!("my-container\n0\n1\nbin\ndev\nproc\ntmp\n2 /proc/1\nsh\n{euid}\nwritten"));
}
