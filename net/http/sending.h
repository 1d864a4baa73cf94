/* A request's bytes on their way to an HTTP server: the head, then pieces of body, inline or files, in
 * chunks or not. Written as far as the socket takes them; can be started over while all is there.
 *
 * Ownership: embedded, {0} plus rs_sending_begin. A borrowed piece must live until rs_sending_clear.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/list.h"

struct rs_piece {
    struct rs_list link;
    struct rs_buf copy;
    const char *data; /* inline, or */
    int fd;           /* a file with the bytes from offset 0 */
    bool own_fd;
    uint64_t len, done; /* done: of pre + len + post */
    uint64_t take;      /* to be told to the origin when it is sent */
    char pre[24];
    size_t pre_len, post_len;
};

struct rs_sending {
    struct rs_buf head;
    size_t head_done;
    struct rs_list pieces;
    struct rs_piece first; /* the body that was there at the start */
    bool chunked, keep;    /* keep: what is sent stays, for rs_sending_restart */
    uint64_t sent, taken;  /* bytes in all; `take` of pieces sent, to be collected by the owner */
};

void rs_sending_begin(struct rs_sending *s, bool chunked, bool keep); /* after the head is set */
void rs_sending_clear(struct rs_sending *s);
void rs_sending_fini(struct rs_sending *s);

/* The body that is there: borrowed. `end` with chunks: nothing follows. */
void rs_sending_first(struct rs_sending *s, const char *data, int fd, uint64_t len, bool end);
/* More: copied, or the descriptor taken. */
void rs_sending_add(struct rs_sending *s, const char *data, int *fd, uint64_t len, bool end);

enum { RS_SENDING_BLOCKED = 1 };
/* 0: all is sent, RS_SENDING_BLOCKED: the socket is full, -1: it is broken (errno). */
int rs_sending_write(struct rs_sending *s, int fd);
bool rs_sending_empty(const struct rs_sending *s); /* nothing waits to be sent */
void rs_sending_restart(struct rs_sending *s);
