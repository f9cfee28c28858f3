//! Unloads modules. All of it is in `umvu_tools::rmmod`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::rmmod::run)
}
