/* A frame connection that carries requests: to a replica and from it, or between two nodes.
 *
 * Outgoing: requests that this node opened; their numbers are `first`, `first` + 2, ...
 * Incoming: calls that the other side opened; each becomes a request of its own (call.c), submitted
 *           to the lane, its answer written back here.
 * Thread:   the lane's. Embedded in its owner.
 */
#pragma once

#include "net/router/lane.h"
#include "net/router/objects.h"
#include "net/router/starts.h"
#include "net/router/streams.h"
#include "net/wire/conn.h"

struct rs_channel;

struct rs_channel_ops {
    /* A frame that is not about a stream. -1 with `err`: it has no business here. */
    int (*on_message)(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err);
    /* Hang-up or garbage. Outgoing requests are the owner's to end; incoming ones were cancelled. */
    void (*on_close)(struct rs_channel *ch, const char *why);
    /* A request of `abandoned` has ended at the other side. NULL: there are none. */
    void (*on_ended)(struct rs_channel *ch);
};

struct rs_channel {
    struct rs_lane *lane;
    struct rs_conn *conn;
    const struct rs_channel_ops *ops;
    bool from_node;        /* what comes in is for replicas of this node only */
    bool node;             /* the other side is a node: objects of this one mean nothing there */
    bool greeted;          /* streams may come: of another node not before its HELLO */
    uint64_t next;         /* number of the next outgoing stream */
    struct rs_streams out; /* struct rs_request */
    struct rs_streams in;  /* struct rs_call */
    struct rs_streams abandoned; /* cancelled, and its end is waited for; the values mean nothing */
    struct rs_list calls;        /* incoming, all of them */
    struct rs_figures *figures;  /* of a replica, where they are counted; NULL: nowhere */
    const struct rs_starts *starts; /* what the other side has begun; NULL: it does not tell */
    struct rs_object_refs refs;     /* of the process at the other side */
};

/* Takes `fd`. `first`: 2 (even numbers are ours) or 1. */
RS_MUST_CHECK int rs_channel_init(struct rs_channel *ch, struct rs_lane *lane, int fd,
                                  uint64_t first, const struct rs_channel_ops *ops,
                                  struct rs_error *err);
/* Closes; incoming calls are cancelled. The owner ends the outgoing requests. */
void rs_channel_fini(struct rs_channel *ch);

/* What a backend's ops do. */
void rs_channel_send(struct rs_channel *ch, struct rs_request *r);
void rs_channel_feed(struct rs_channel *ch, struct rs_request *r, struct rs_chunk *body, bool end);
void rs_channel_window(struct rs_channel *ch, struct rs_request *r, uint64_t n);
void rs_channel_cancel(struct rs_channel *ch, struct rs_request *r);

/* --- call.c ------------------------------------------------------------------------------------ */

struct rs_call;
/* A REQUEST frame of the other side. */
RS_MUST_CHECK int rs_call_open(struct rs_channel *ch, struct rs_frame *f, struct rs_error *err);
void rs_call_feed(struct rs_call *call, struct rs_chunk *body, bool end);
void rs_call_window(struct rs_call *call, uint64_t n);
/* The other side wants it no longer (`tell` false), or the node ends it (an ERROR is sent). */
void rs_call_cancel(struct rs_call *call, bool tell);
void rs_call_cancel_all(struct rs_channel *ch);
void rs_call_cancel_children(struct rs_channel *ch, uint64_t parent);

/* Writes one frame; takes chunk's descriptor if there is one. */
void rs_channel_write(struct rs_channel *ch, enum rs_msg type, bool end, uint64_t stream,
                      const void *meta, size_t meta_len, struct rs_chunk *body);
/* Tells the other side that `n` more bytes were taken, in steps worth a frame. `owed` keeps the rest. */
void rs_channel_give_back(struct rs_channel *ch, uint64_t stream, uint64_t *owed, uint64_t n);

/* --- object_call.c ----------------------------------------------------------------------------- */

/* The other side gets a frame with this metadata: it has a reference to each of its OBJECTS. */
void rs_channel_grant(struct rs_channel *ch, const void *meta, size_t meta_len);
RS_MUST_CHECK int rs_call_hold(struct rs_channel *ch, const struct rs_frame *f,
                               struct rs_error *err);
RS_MUST_CHECK int rs_channel_refs(struct rs_channel *ch, const struct rs_frame *f,
                                  struct rs_error *err);
