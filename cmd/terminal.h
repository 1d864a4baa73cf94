/* What a file descriptor can show: a terminal's width, and whether colours are welcome. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct rs_terminal {
    bool tty;
    bool color;           /* a terminal, TERM is not dumb, NO_COLOR is not set */
    size_t width, height; /* 80 x 24 where nothing tells */
};

struct rs_terminal rs_terminal_of(int fd);
