//! Lists modules. All of it is in `umvu_tools::lsmod`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::lsmod::run)
}
