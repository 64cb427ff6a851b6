//! Takes the terminal over as `top` does, and panics: `run.py` looks at what is left of the terminal.

use kagent_proxy::top::Screen;

fn main() -> std::io::Result<()> {
    let mut screen = Screen::open()?;
    screen.draw(|frame| {
        // Beyond the screen, which is what a fault of a drawing looks like.
        let cell = &frame.buffer_mut()[(u16::MAX, u16::MAX)];
        assert_eq!(cell.symbol(), "never reached");
    })
}
