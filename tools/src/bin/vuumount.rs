//! Unmounts. All of it is in `umvu_tools::unmount`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::unmount::run)
}
