/* libmicrohttpd's epoll set, inside the lane's loop.
 *
 * libmicrohttpd keeps an epoll set of its own, which would be watched by the loop's: each event would be
 * fetched twice, and each suspended connection would cost two calls to leave the set and come back. The
 * build has it call the functions below instead of epoll_ctl and epoll_wait: clients' sockets are in the
 * loop's set alone, once and edge-triggered, and what comes is noted here until the daemon is run. Its
 * own set keeps the listener.
 *
 * Thread: the lane's.
 */
#pragma once

#include "core/base/list.h"
#include "core/loop/loop.h"
#include "net/wire/starved.h"

#include <sys/socket.h>

struct rs_mhd_events;

/* A client's socket. */
struct rs_mhd_fd {
    struct rs_io io;
    struct rs_mhd_events *events;
    struct rs_list due;
    uint32_t got; /* not told yet */
    bool wanted;  /* libmicrohttpd has it in its set */
    void *data;   /* its own */
};

struct rs_mhd_events {
    struct rs_loop *loop;
    int epoll_fd; /* libmicrohttpd's */
    bool own;     /* something is in its set */
    int closed;   /* the descriptor that was taken out last; libmicrohttpd may do so once more */
    struct rs_mhd_fd **by_fd;
    size_t size;
    struct rs_list due;
    void (*wake)(struct rs_mhd_events *e); /* the daemon is to be run */
    void (*hup)(struct rs_mhd_fd *f);      /* the client hung up, or half of it; maybe again */
};

/* `wake` and `hup` are set by the caller; `epoll_fd` when the daemon was started. */
void rs_mhd_events_init(struct rs_mhd_events *e, struct rs_loop *loop);
void rs_mhd_events_fini(struct rs_mhd_events *e);
/* This thread is about to run the daemon, from now on. */
void rs_mhd_events_enter(struct rs_mhd_events *e);
/* Before libmicrohttpd puts it into its set. -1: out of memory. */
RS_MUST_CHECK int rs_mhd_fd_open(struct rs_mhd_events *e, struct rs_mhd_fd *f, int fd);
void rs_mhd_fd_close(struct rs_mhd_fd *f); /* idempotent */
/* Has libmicrohttpd read it once more: it stops after it got less than it asked for, and so overlooks
 * the end of what came together with it. */
void rs_mhd_fd_look_again(struct rs_mhd_fd *f);

/* The listener of the daemon that this thread is about to run. */
void rs_mhd_accept_for(struct rs_starved *s);

/* --- what libmicrohttpd calls ------------------------------------------------------------------ */

int rs_mhd_epoll_ctl(int epoll_fd, int op, int fd, struct epoll_event *event);
int rs_mhd_accept4(int fd, struct sockaddr *sa, socklen_t *len, int flags);
int rs_mhd_epoll_wait(int epoll_fd, struct epoll_event *events, int max, int timeout);
