//! Writes man pages and shell completions. All of it is in `umvu_tools::docs`.

fn main() -> std::process::ExitCode {
    umvu_tools::report::run_tool(umvu_tools::docs::run)
}
