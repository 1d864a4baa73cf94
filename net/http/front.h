/* What stands between a client's socket and libmicrohttpd, which the build has call the rs_mhd functions
 * below where it would call those of the system: no other way in leads past the checks, and none of
 * it costs a system call or a copy of its own.
 *
 *   socket -> PROXY header -> TLS -> strict.h -> libmicrohttpd, or a WebSocket
 *
 * A request that strict.h refuses is replaced by one that is well-formed and marked: it is answered in
 * its turn, counted and logged as others are, and then the connection ends. Where a body is broken off,
 * libmicrohttpd is given one that it refuses itself.
 *
 * Thread: the lane's. The rs_mhd functions may be called on any: without a front they are the system's.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/list.h"
#include "core/loop/loop.h"
#include "net/http/proxy_protocol.h"
#include "net/http/strict.h"
#include "net/http/tls.h"

#include <sys/socket.h>
#include <sys/types.h>

struct rs_front_conn {
    int fd; /* -1: none */
    struct rs_front *front;
    /* Set while a PROXY header is to come; called with the header or, for want of one, the reason. */
    void (*on_proxy)(struct rs_front_conn *c, const struct rs_proxy_header *h,
                     const struct rs_error *why);
    void *owner;
    struct rs_tls_conn *tls; /* NULL: without */
    size_t owed;  /* bytes that were encrypted but not reported as sent: their records wait */
    bool shaking; /* the handshake is not over; the timer bounds it */
    struct rs_buf early; /* read from the socket before its turn */
    struct rs_strict strict;
    struct rs_buf held; /* read, not passed on; the first `held_ok` bytes may be */
    size_t held_ok;
    bool deaf;           /* a request was refused: nothing of what follows is heard */
    bool late;           /* because its head took too long */
    struct rs_list slow; /* in the front's list, while a part of a head is there, since .. */
    int64_t head_since;
    bool lingers;    /* libmicrohttpd has closed it; it is read dry so that the answer arrives */
    struct rs_io io; /* while it lingers */
    struct rs_timer timer; /* of its handshake, or while it lingers */
    struct rs_list link;
    size_t discarded;
};

/* The connections of one lane. */
struct rs_front {
    struct rs_loop *loop;
    struct rs_tls *tls; /* borrowed; NULL: without */
    size_t head_max;
    char *gather; /* SCRATCH bytes that become one record or a few */
    struct rs_front_conn **by_fd;
    size_t size;
    struct rs_list lingering;
    int64_t head_timeout; /* ns from a head's first byte to its last, then 408; 0: none */
    struct rs_list slow;  /* those whose head is under way, the oldest first */
    struct rs_timer late;
};

void rs_front_init(struct rs_front *f, struct rs_loop *loop, size_t head_max, int64_t head_timeout);
void rs_front_fini(struct rs_front *f); /* closes what lingers */
/* This thread is about to run libmicrohttpd for these connections, from now on. */
void rs_front_enter(struct rs_front *f);

/* A connection was accepted. */
struct rs_front_conn *rs_front_open(struct rs_front *f, int fd);
/* It begins with a PROXY header, which is told to `fn` before anything else is read. */
void rs_front_expect_proxy(struct rs_front_conn *c,
                           void (*fn)(struct rs_front_conn *c, const struct rs_proxy_header *h,
                                      const struct rs_error *why),
                           void *owner);
/* libmicrohttpd is about to close it. The connection frees itself when that is done. */
void rs_front_release(struct rs_front_conn *c);

/* The status and the reason if a request of this method stands for one that was refused; else 0. */
unsigned rs_front_refused(const struct rs_front_conn *c, const char *method, const char **why);
/* Its end of input is ours, not the client's. */
static inline bool rs_front_is_late(const struct rs_front_conn *c)
{
    return c->late;
}
/* Bytes are there that libmicrohttpd will not ask for: those behind a WebSocket handshake. */
bool rs_front_has_rest(const struct rs_front_conn *c);

/* Past libmicrohttpd and the checks: once a connection is a WebSocket's, and for last words. As recv and
 * send with MSG_DONTWAIT. */
ssize_t rs_front_recv(struct rs_front_conn *c, void *to, size_t size);
ssize_t rs_front_send(struct rs_front_conn *c, const void *data, size_t len);
/* rs_front_recv has something without the socket being readable. */
bool rs_front_pending(const struct rs_front_conn *c);
/* No more will be sent. */
void rs_front_shut(struct rs_front_conn *c);

/* --- what libmicrohttpd calls ------------------------------------------------------------------ */

ssize_t rs_mhd_recv(int fd, void *to, size_t size, int flags);
ssize_t rs_mhd_send(int fd, const void *data, size_t len, int flags);
ssize_t rs_mhd_sendmsg(int fd, const struct msghdr *msg, int flags);
ssize_t rs_mhd_sendfile(int fd, int in, off_t *at, size_t count);
int rs_mhd_shutdown(int fd, int how);
int rs_mhd_close(int fd);
