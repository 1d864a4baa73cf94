/* A connection that speaks frames: a non-blocking socket in a loop, with buffers in both directions.
 *
 * Ownership: rs_conn_new takes the socket; rs_conn_free closes it and every descriptor in its
 *            queues. What on_frame is given is borrowed until it returns; it may take a descriptor
 *            by setting it to -1 (rs_steal_fd).
 * Thread:    the loop's. Nothing here blocks.
 * Output:    gathered during a turn of the loop and written at its end, in as few calls as possible.
 *            Bodies over RS_FRAME_MEMFD_MIN leave a Unix socket as a memfd, on TCP inline.
 * Errors:    a broken frame, a hang-up or a failed write calls on_close once, with the reason; after
 *            that nothing is sent or received. The owner then frees the connection.
 * Callbacks: on_frame and on_close may call rs_conn_free on their own connection.
 */
#pragma once

#include "core/base/cleanup.h"
#include "core/loop/loop.h"
#include "net/wire/frame.h"

#include <jansson.h>

struct rs_conn;

struct rs_frame {
    struct rs_header h;
    const char *meta;
    const char *body;          /* inline; NULL with MEMFD */
    int body_fd;               /* memfd of at least body_len bytes, offset 0; -1 if inline */
    int fds[RS_FRAME_FDS_MAX]; /* descriptors other than the body's; -1 after the last */
};

struct rs_conn_ops {
    void (*on_frame)(struct rs_conn *c, struct rs_frame *f, void *arg);
    void (*on_close)(struct rs_conn *c, const struct rs_error *why, void *arg);
    /* Output fell below the low-water mark after rs_conn_congested said true; may be NULL. */
    void (*on_drain)(struct rs_conn *c, void *arg);
};

/* Takes `fd` (also on failure) and makes it non-blocking. */
RS_MUST_CHECK int rs_conn_new(struct rs_conn **ret, struct rs_loop *loop, int fd,
                              const struct rs_conn_ops *ops, void *arg, struct rs_error *err);
void rs_conn_free(struct rs_conn *c); /* NULL is fine; flushes what the socket takes at once */
RS_DEFINE_AUTO(struct rs_conn *, rs_conn_free);
bool rs_conn_closed(const struct rs_conn *c);
/* A Unix socket: the other end is on this machine, and the kernel tells at once when it is gone. */
bool rs_conn_within(const struct rs_conn *c);

/* Offset in the whole output of the connection behind what was sent so far. */
uint64_t rs_conn_sent(const struct rs_conn *c);
/* In on_close: the peer cannot have read everything before offset `at`. Either it was not written yet,
 * or the kernel said that the peer left with input unread and `at` is the end of what was written. */
bool rs_conn_unread(const struct rs_conn *c, uint64_t at);

/* The frame's bytes are copied (or put in a memfd) before this returns. `flags`: RS_FRAME_END. */
void rs_conn_send(struct rs_conn *c, enum rs_msg type, unsigned flags, uint64_t stream,
                  const void *meta, size_t meta_len, const void *body, size_t body_len);
/* The body is the first `body_len` bytes of `fd`, which is taken. Over TCP it is read and cut into
 * frames here. */
void rs_conn_send_fd(struct rs_conn *c, enum rs_msg type, unsigned flags, uint64_t stream,
                     const void *meta, size_t meta_len, int fd, uint64_t body_len);
void rs_conn_send_json(struct rs_conn *c, enum rs_msg type, uint64_t stream, const json_t *j);
/* As above; but what is longer than a message may be is not sent, and the connection stays: -1. For
 * what others wrote. */
RS_MUST_CHECK int rs_conn_offer_json(struct rs_conn *c, enum rs_msg type, uint64_t stream,
                                     const json_t *j, struct rs_error *err);
/* The same with the text of a JSON object. */
RS_MUST_CHECK int rs_conn_offer_text(struct rs_conn *c, enum rs_msg type, uint64_t stream,
                                     const char *text, struct rs_error *err);
/* As rs_conn_send_json with `n` descriptors to pass, which are taken. Unix sockets only. */
void rs_conn_send_json_fds(struct rs_conn *c, enum rs_msg type, uint64_t stream, const json_t *j,
                           int *fds, size_t n);

/* More than 1 MiB waits to be written: stop feeding until on_drain. */
bool rs_conn_congested(const struct rs_conn *c);
/* Stop (and go on) reading: back-pressure towards the peer. */
void rs_conn_pause(struct rs_conn *c, bool paused);
/* Reads what is there without waiting for the loop: frames, perhaps a hang-up. */
void rs_conn_receive(struct rs_conn *c);

/* The JSON object in a frame's metadata, new reference; -1 if it is none. */
RS_MUST_CHECK int rs_frame_json(const struct rs_frame *f, json_t **ret, struct rs_error *err);
