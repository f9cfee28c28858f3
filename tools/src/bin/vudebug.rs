//! Switches the log of the view. All of it is in `umvu_tools::debug`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::debug::run)
}
