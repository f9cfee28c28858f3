//! Mounts. All of it is in `umvu_tools::mount`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::mount::run)
}
