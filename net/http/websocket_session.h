/* One WebSocket connection as a state machine: a client that speaks frames on one side, an application
 * that speaks records (net/wire/record.h) on the other. No socket, no clock.
 *
 *     client  -- rs_ws_client() -->  in   -- the owner passes it on -->  application
 *     client  <-- the owner writes it --  out  <-- rs_ws_app() --  application
 *
 * Pieces of messages pass through as they come; nothing waits for a whole message. Pings are answered
 * here, and a client that does not answer ours is given up. The closing handshake is led here too.
 *
 * Units:     time is monotonic ns, handed in as `now`.
 * Ownership: embedded; rs_ws_fini releases. The owner empties `in` and `out`.
 * Bounds:    `in` grows by at most 4/3 of what rs_ws_client is given and a close record, `out` by what
 *            rs_ws_app is given and a few control frames.
 */
#pragma once

#include "core/base/buf.h"
#include "net/http/websocket_frame.h"
#include "net/wire/record.h"

struct rs_ws_conf {
    uint64_t max_message; /* bytes; more closes with 1009 */
    int64_t ping_every, ping_patience;
    int64_t close_patience; /* for the client's part of the closing handshake */
};
/* What uvicorn does unless it is told otherwise. */
extern const struct rs_ws_conf rs_ws_defaults;

/* A close, ready to be said or told. */
struct rs_ws_farewell {
    uint16_t code;
    uint8_t len;
    char reason[RS_WS_REASON_MAX];
};

struct rs_ws_session {
    const struct rs_ws_conf *conf;
    struct rs_buf in, out;
    bool in_ended; /* the application was told the end: nothing more goes into `in` */
    uint16_t code; /* the first close code of either side; 0: open */

    /* --- its own --- */
    struct {
        uint8_t head[RS_WS_HEAD_MAX];
        size_t have;
        bool inside; /* a frame, `left` bytes of whose payload are missing */
        struct rs_ws_head frame;
        uint64_t left, message; /* message: its bytes before this frame */
        uint8_t opcode;         /* of the message that goes on; 0: none does */
        struct rs_ws_text text;
        char control[RS_WS_CONTROL_MAX];
        bool deaf; /* what comes is thrown away */
    } client;
    struct {
        uint8_t head[RS_RECORD_HEAD];
        size_t have;
        struct rs_record record;
        uint32_t left;
        bool inside, goes_on; /* within a record; within a message */
        struct rs_ws_farewell close;
        bool ended;
    } app;
    struct rs_ws_farewell farewell; /* to be said at the next end of a frame */
    bool closing, close_sent, close_received;
    bool hang_up, cut, gone; /* hang_up: when `out` was written */
    char pong[RS_WS_CONTROL_MAX];
    uint8_t pong_len;
    bool pong_due;
    uint32_t pings;
    int64_t ping_at, pong_by, close_by; /* 0: not waited for */
};

void rs_ws_init(struct rs_ws_session *s, const struct rs_ws_conf *conf, int64_t now);
void rs_ws_fini(struct rs_ws_session *s);

/* Bytes that the client sent. */
void rs_ws_client(struct rs_ws_session *s, const char *data, size_t n, int64_t now);
/* The client's connection ended: the application hears of it, nothing is said any more. */
void rs_ws_client_gone(struct rs_ws_session *s);

/* Bytes of the application's answer. */
void rs_ws_app(struct rs_ws_session *s, const char *data, size_t n, int64_t now);
enum rs_ws_end {
    RS_WS_END_DONE,    /* it returned: the connection is closed, unless it said how before */
    RS_WS_END_DIED,    /* its process died, or anything else of the system's: 1011 */
    RS_WS_END_STOPPED, /* its process had to go, another one takes its place: 1012 */
    RS_WS_END_CUT,     /* it raised: the connection ends without a word, as with uvicorn */
};
void rs_ws_app_ended(struct rs_ws_session *s, enum rs_ws_end how, int64_t now);

/* The server stops: both sides are told. */
void rs_ws_restart(struct rs_ws_session *s, int64_t now);

/* The client took bytes of `out`: one that reads slowly is not one that is gone. */
void rs_ws_wrote(struct rs_ws_session *s, int64_t now);
/* Does what is due; then the time of the next thing to do, 0: none. `held_back`: nothing is read from
 * the client because the application does not take it, so its pongs may be there unread. */
int64_t rs_ws_tick(struct rs_ws_session *s, bool held_back, int64_t now);

enum rs_ws_next {
    RS_WS_NEXT_NOTHING,
    RS_WS_NEXT_LINGER, /* write `out`, then shut down for writing and read to the end */
    RS_WS_NEXT_CLOSE,  /* write `out`, then close */
    RS_WS_NEXT_DROP,   /* close now */
};
enum rs_ws_next rs_ws_next(const struct rs_ws_session *s);
