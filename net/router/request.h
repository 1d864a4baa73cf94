/* A request on its way through the data plane, and what comes back.
 *
 * Origin:    who wants the answer: the HTTP ingress, a replica that makes a call, another node. It
 *            owns the memory of the request (usually embeds it) and is told through `reply`.
 * Backend:   who works on it (backend.h): a replica, an HTTP server, another node, another lane.
 * Life:      from rs_lane_submit until its last reply (`end`, or fail) or until rs_request_cancel,
 *            whichever comes first, exactly once; after that nothing of the router touches it.
 * Thread:    one lane. A request that must be worked on by another lane stays where it is and gets a
 *            twin there (relay.c); only plain bytes and descriptors cross.
 * Credit:    RS_STREAM_WINDOW bytes of body may be under way in each direction; the receiver gives
 *            back what it took. A chunk may overrun the credit once.
 */
#pragma once

#include "core/base/buf.h"
#include "core/base/list.h"
#include "net/router/memory.h"
#include "net/router/queue.h"
#include "net/router/retry.h"
#include "net/wire/frame.h"

#include <stdint.h>

struct rs_backend;
struct rs_request;
struct rs_replies;

/* Of a replica's id, with the NUL; longer ones are cut. */
enum { RS_REPLICA_ID_SHOWN = 48 };

/* A piece of a body. Borrowed during the call; a receiver that wants the descriptor takes it by
 * setting `fd` to -1 (rs_steal_fd). */
struct rs_chunk {
    const char *data; /* inline, or NULL with fd */
    uint64_t len;
    int fd; /* memfd that holds the body from offset 0; -1 if inline */
};
#define RS_CHUNK_NONE ((struct rs_chunk){.fd = -1})

/* The head of an answer. HTTP: status and headers. A handle call: meta only. */
struct rs_answer {
    unsigned status; /* 0: a handle call's answer */
    /* "name NUL value NUL ...", names in lower case, order and repeats kept, hop-by-hop ones may be
     * there and are removed by the ingress. content-length is honoured; without it an answer that is
     * whole gets its length, another one is sent chunked. */
    const char *headers;
    size_t headers_len;
    /* The RESPONSE frame's metadata as it came, to be passed on; NULL: made from the above. */
    const void *meta;
    size_t meta_len;
};

/* Why there is no (further) answer. */
struct rs_failure {
    enum rs_wire_error code;
    const char *message; /* one line, or NULL */
    unsigned queued, max_queued;
    unsigned retry_after; /* s, of BACKPRESSURE; 0: not known */
    bool raised;          /* an exception in a replica, told by its type */
    bool stopped;         /* DIED, but as it should: its time to finish was over */
    /* The ERROR frame's metadata and body as they came, to be passed on; NULL: made from the above. */
    const void *meta;
    size_t meta_len;
    struct rs_chunk *body; /* may be NULL */
};

/* Told on the origin's lane. None of these may call rs_request_cancel on the same request. */
struct rs_reply_ops {
    /* The head, with the first (often the only) piece of the body; `body->len` may be 0. */
    void (*answer)(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                   bool end);
    void (*data)(struct rs_request *r, struct rs_chunk *body, bool end);
    void (*fail)(struct rs_request *r, const struct rs_failure *f); /* ends it */
    /* n more bytes of the request's body were taken, those sent with it included. Only while
     * body_end was false when it was sent. */
    void (*taken)(struct rs_request *r, uint64_t n);
    /* A slot was taken for it; NULL where RS_WANTS_SLOT is never asked for. */
    void (*reserved)(struct rs_request *r, const char *replica_id);
};

enum rs_wants {
    RS_WANTS_WORK,    /* to be sent when there is a slot */
    RS_WANTS_SLOT,    /* a slot of this node; rs_request_dispatch or cancel follows */
    RS_WANTS_LIST,    /* the names of a node's replicas, at once */
    RS_WANTS_REPLICA, /* to be sent to the one in its meta, at once */
    RS_WANTS_FREE,    /* as WORK, but it does not wait: a slot that is free and wanted by nobody */
};

struct rs_request {
    const struct rs_reply_ops *reply;
    /* The REQUEST frame's fields (PROTOCOL.md), encoded once; read them with rs_fields_parse. The
     * time left is patched in when the request is sent. */
    struct rs_buf meta;
    size_t timeout_at;          /* offset of TIMEOUT_MS's value in meta, 0: none */
    size_t route_at, route_len; /* ROUTE's value in meta */
    int64_t deadline;      /* monotonic ns, 0: none. The origin ends it then; a late queue too */
    uint8_t kind;          /* RS_REQUEST_HTTP, _CALL, _WEBSOCKET */
    uint8_t wants;         /* enum rs_wants */
    bool objects;          /* its metadata has OBJECTS */
    struct rs_retry retry; /* the origin sets `safe` */
    uint8_t priority;      /* 0 to 9, 9 is the most urgent */
    char *replica; /* RS_REPLICA_ID_SHOWN bytes, for the id of who works on it; NULL: nobody asks */
    /* waiter.wish may be set by the origin: the model and the session that it is about. */
    bool local_only; /* came from another node: not to be sent to a third */

    /* What is there of the body when the request is sent: `body`, or `body_len` bytes of body_fd.
     * The backend may take either (rs_steal_fd; swap the buffer). */
    struct rs_buf body;
    int body_fd; /* -1: none */
    uint64_t body_len;
    bool body_end; /* that is all; false: the rest comes by feed */

    /* --- the router's own --- */
    struct rs_waiter waiter; /* in its deployment's queue */
    struct rs_list link;     /* among its backend's requests */
    struct rs_pool *pool;
    struct rs_backend *backend; /* NULL: waits */
    int64_t sent_at;
    struct rs_lane_memory *memory; /* that counts its body; NULL: none does */
    uint64_t held;                 /* bytes of that */
    uint8_t held_as;               /* enum rs_held */
    bool opened;                   /* its answer has begun, and is not over */
    bool lost;                     /* its backend died; it waits to hear how */
    uint8_t verdict;               /* enum rs_retry_verdict, of that */
    struct rs_relay *relay;        /* it lives on another lane */
    struct rs_passage *passage;    /* it goes through a declared graph */
    struct rs_choice *choice;      /* by the deployment's own router; NULL: it has none */

    /* --- the backend's own, from send to the end --- */
    void *via;            /* e.g. the exchange with an upstream */
    uint64_t stream;      /* e.g. number on a frame connection */
    uint64_t ahead;       /* e.g. bytes of the answer that the origin has not taken yet */
    uint64_t owed;        /* e.g. bytes that it took and that were not given back yet */
    uint64_t wire;        /* e.g. the call whose items are its answer (wired.h); 0: none */
    uint64_t wired;       /* e.g. bytes of those that the origin has not taken yet */
    uint64_t wired_spare; /* e.g. credit that they used beside these */
    uint64_t end_at;      /* e.g. where its frame ends in the output */
    bool unread;          /* the connection broke, and the other side cannot have started on it */
    bool kept;            /* what it was sent with is still here: it can be sent once more */
    bool told_safe;       /* its meta says SAFE */
    bool told_error;      /* its answer says 5xx */
};

/* --- for origins ------------------------------------------------------------------------------- */

/* Its body, which it keeps, took `n` more bytes. */
void rs_request_hold(struct rs_request *r, struct rs_lane_memory *m, uint64_t n);
/* They are kept for another reason from now on. */
void rs_request_hold_as(struct rs_request *r, enum rs_held what);
/* Its body is gone. */
void rs_request_let_go(struct rs_request *r);
/* Ready to be filled; buffers that it has are kept and emptied. */
void rs_request_reset(struct rs_request *r, const struct rs_reply_ops *reply);
void rs_request_fini(struct rs_request *r);
/* Appends well-formed fields to an empty meta and notes where the time limit and the route are. */
void rs_request_take_meta(struct rs_request *r, const char *meta, size_t len);

/* Says in the metadata how urgent it is, if there is room. */
void rs_request_put_priority(struct rs_request *r);

/* More of the body of a request whose body_end is false; `end` with the last piece (maybe empty). */
void rs_request_feed(struct rs_request *r, struct rs_chunk *body, bool end);
/* The origin took `n` bytes of the answer's body. */
void rs_request_window(struct rs_request *r, uint64_t n);
/* Makes the call for which a slot is reserved. The body's descriptor may be taken. */
void rs_request_dispatch(struct rs_request *r, const char *meta, size_t meta_len,
                         struct rs_chunk *body);
/* The answer is no longer wanted: the work is stopped, no reply follows. */
void rs_request_cancel(struct rs_request *r);

/* --- for backends ------------------------------------------------------------------------------ */

/* Each may lead to `send` of another request to the same backend before it returns. After `end`, and
 * after rs_request_fail, the request is gone. */
void rs_request_answer(struct rs_request *r, const struct rs_answer *a, struct rs_chunk *body,
                       bool end);
void rs_request_data(struct rs_request *r, struct rs_chunk *body, bool end);
void rs_request_fail(struct rs_request *r, const struct rs_failure *f);
/* The backend passed on `n` more bytes of the request's body, those it got with send included. Needed
 * only where body_end was false at send. */
void rs_request_taken(struct rs_request *r, uint64_t n);
/* A WebSocket handshake that this backend does not take: answered with 501. */
void rs_request_refuse_websocket(struct rs_request *r);
/* It was not started: back to the front of the queue. First call rs_backend_block if it was this
 * backend's fault, or it comes straight back. */
void rs_request_return(struct rs_request *r);
/* Nothing of its body is needed any more: its answer has begun. */
void rs_request_drop_body(struct rs_request *r);
/* Writes the time left into meta; call it just before meta is sent. */
void rs_request_stamp(struct rs_request *r, int64_t now);
