#include "cmd/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH = 80, HEIGHT = 24, WIDTH_MIN = 40, WIDTH_MAX = 400 };

struct rs_terminal rs_terminal_of(int fd)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR"), *columns = getenv("COLUMNS");
    struct rs_terminal t = {.tty = isatty(fd) == 1, .width = WIDTH, .height = HEIGHT};
    struct winsize size;

    if (t.tty && ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        t.width = size.ws_col;
        t.height = size.ws_row > 0 ? size.ws_row : HEIGHT;
    } else if (columns && strtoul(columns, NULL, 10) > 0) {
        t.width = strtoul(columns, NULL, 10);
    }
    t.width = t.width < WIDTH_MIN ? WIDTH_MIN : t.width > WIDTH_MAX ? WIDTH_MAX : t.width;
    t.color = t.tty && !(no_color && no_color[0]) && !(term && strcmp(term, "dumb") == 0);
    return t;
}
