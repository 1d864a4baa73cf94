/* What server.c and the files of the ingress share. */
#pragma once

#include "core/base/buf.h"
#include "core/base/list.h"
#include "core/loop/loop.h"
#include "net/http/cause.h"
#include "net/http/forwarded.h"
#include "net/http/front.h"
#include "net/http/mhd_events.h"
#include "net/router/dataplane.h"
#include "net/router/lane.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>

/* What a trusted proxy's headers say, elements divided by commas. */
struct rs_http_via {
    struct rs_buf chain, proto, forwarded; /* X-Forwarded-For, X-Forwarded-Proto, Forwarded */
};

struct rs_http_server {
    struct rs_lane *lane;
    const struct rs_ingress_conf *conf;
    struct MHD_Daemon *daemon;
    struct rs_front front;
    struct rs_trusted trusted; /* proxies */
    int64_t told_at;           /* when a missing PROXY header was logged last */
    struct rs_io io;           /* the daemon's own epoll set */
    struct rs_mhd_events events;
    struct rs_after after;
    bool dirty;    /* a connection was resumed */
    bool stopping; /* answers tell their clients to go elsewhere */
    bool in_after;

    /* Who waits without being suspended; see server.c. */
    bool running;          /* inside MHD_run */
    bool settle;           /* they are suspended in this run */
    unsigned waiting;      /* how many */
    unsigned follow;       /* runs that the last ones may have left something for */
    unsigned long_replies; /* from files: nobody knows how many runs they take */
    int64_t ran_at;
    struct rs_list ready; /* requests that waited, by their `turn` */

    struct rs_http_via via; /* of the header that is read */
    struct rs_list conns, requests, spare;
    struct rs_list idle;   /* connections without a request that keep their memory, by `rest` */
    struct rs_timer tired; /* when the first of them has been idle for long */
    struct rs_list hung;   /* connections whose clients hung up, which libmicrohttpd may not know */
    struct rs_starved starved;
    unsigned n_conns, n_conns_max;
    bool full_told; /* in the log */
    unsigned n_spare, n_requests, n_shown;
    uint64_t kept; /* bytes of bodies that were read before their replicas were chosen */
    struct rs_series *ongoing;
    struct rs_http_log *log; /* NULL: no access log */
    uint64_t random[2];
};

/* Whom a trusted proxy's headers name. */
struct rs_http_origin {
    char client[64]; /* "192.0.2.1:0" */
    uint8_t key[8], key_len;
};

struct rs_http_conn {
    struct rs_http_server *server;
    struct rs_front_conn *front;
    struct rs_mhd_fd fd;
    struct rs_list link, rest, hung;
    int64_t idle_since;
    struct MemoryPool *pool;
    struct rs_http_request *req; /* the one under way */
    bool gone;                   /* the client hung up */
    struct rs_buf fields;        /* CLIENT, SERVER, SCHEME */
    uint8_t client[8];           /* whom rate limits of key "client" are about */
    uint8_t client_len;
    bool trusted;                /* a proxy: its headers tell who asks */
    size_t server_at, scheme_at; /* in `fields` */
    struct rs_http_origin
        *origin; /* of the request under way if it is `forwarded`; made when needed */
};

/* Where the request is, as seen from libmicrohttpd. */
enum rs_http_stage {
    RS_HTTP_LINE,     /* the request line came */
    RS_HTTP_UPLOAD,   /* the header came; the body is coming in */
    RS_HTTP_WAITING,  /* all of it came; waits until there is an answer */
    RS_HTTP_REPLYING, /* the answer's head was handed over */
    RS_HTTP_DETACHED, /* the client is served or gone; the work goes on */
};

/* A piece of an answer's body that waits for the client. */
struct rs_http_piece {
    struct rs_list link;
    uint64_t at, len;
    int fd; /* -1: the bytes follow */
    char data[];
};

struct rs_http_request {
    struct rs_request r;
    struct rs_http_server *server;
    struct rs_http_conn *conn;
    struct MHD_Connection *mc; /* NULL: detached */
    struct rs_list link;
    enum rs_http_stage stage;
    bool suspended; /* by us, in libmicrohttpd's sense */
    bool submitted; /* the router has it (or had) */
    bool over;      /* the router is done with it, or never had it */
    bool abort;     /* cut the connection at the next chance */
    bool discard;   /* there is an answer already: the rest of the body is thrown away */
    bool cut_off;   /* the answer was written past libmicrohttpd; the connection ends */
    bool forwarded; /* by a trusted proxy, for conn->origin */
    bool is_head;
    bool stay; /* x-request-disconnect-disabled */
    bool http_10;
    bool waits;    /* as if suspended, but libmicrohttpd asks again in every run */
    uint8_t polls; /* how often it has asked in vain */
    bool was_suspended, long_reply;
    struct rs_list turn; /* among those that can go on */
    int64_t started_at;
    double timeout_s;
    struct rs_timer timer;

    struct rs_buf target; /* raw, with the query */
    size_t path_len;
    const char *method;                   /* libmicrohttpd's, until the request is complete */
    const char *label;                    /* of the method in metrics; static */
    struct rs_buf id;                     /* what x-request-id says */
    struct rs_route *route;               /* holds its table; NULL: not routed yet */
    uint64_t sent;                        /* bytes of the answer's body handed over */
    char replica[RS_REPLICA_ID_SHOWN];    /* who worked on it, if there is an access log */
    const struct rs_route_policy *policy; /* never NULL once it is routed; the route's */
    size_t header_bytes;
    int bad; /* status that the header deserves, 0: none */
    const char *bad_why;
    enum rs_http_cause cause; /* of an answer that is not the application's */
    int64_t retry_after;      /* seconds, to be told with the answer; 0: not */
    bool has_te, has_length;
    uint64_t content_length;
    uint64_t received, kept; /* bytes of the body; of those, kept here */
    int64_t credit;          /* bytes of body that may still be passed on */

    unsigned status; /* 0: none yet */
    struct MHD_Response *response;
    struct rs_buf text; /* its body, where that is short and came at once */
    struct rs_list pieces;
    bool answer_ended;
    bool sized;  /* the answer told its content-length */
    bool broken; /* it cannot be completed */

    bool wants_websocket;   /* a valid handshake */
    uint8_t app_end;        /* enum rs_ws_end, of one that was accepted */
    char websocket_key[24]; /* Sec-WebSocket-Key */
    struct rs_websocket *websocket;
};

/* --- server.c ---------------------------------------------------------------------------------- */

/* From a callback of libmicrohttpd: it is not asked again until it is resumed. */
void rs_http_suspend(struct rs_http_request *req);
/* The same for what will not take long. */
void rs_http_wait(struct rs_http_request *req);
void rs_http_resume(struct rs_http_request *req); /* nothing if it does not wait */
/* It will not wait any longer, because it ends. */
void rs_http_unwait(struct rs_http_request *req);
static inline bool rs_http_waits(const struct rs_http_request *req)
{
    return req->suspended || req->waits;
}
/* From a callback: `runs` more of libmicrohttpd are needed to finish what this one began. */
void rs_http_follow(struct rs_http_server *s, unsigned runs);
/* Ends the connection's traffic in both directions, whatever libmicrohttpd is doing with it. */
void rs_http_cut(struct rs_http_request *req);
/* libmicrohttpd has something to do: at the end of this turn it is run. */
void rs_http_wake(struct rs_http_server *s);
/* The connection has no request any more. */
void rs_http_idle(struct rs_http_conn *c);

/* --- ingress.c --------------------------------------------------------------------------------- */

struct rs_http_request *rs_http_request_new(struct rs_http_server *s, struct MHD_Connection *mc,
                                            const char *target);
enum MHD_Result rs_http_request_step(struct rs_http_request *req, const char *method,
                                     const char *version, const char *data, size_t *size);
/* libmicrohttpd is done with it. `aborted`: not because all was sent. */
void rs_http_request_done(struct rs_http_request *req, bool aborted);
/* The client hung up while the request waits. */
void rs_http_request_hup(struct rs_http_request *req);
/* The router is done with a request that no one waits for. */
void rs_http_request_release(struct rs_http_request *req);
void rs_http_request_free(struct rs_http_request *req);
void rs_http_request_cancel(struct rs_http_request *req);
/* Its time is over, and the router is done with it: 408. */
void rs_http_answer_timeout(struct rs_http_request *req);

/* It asks before it sends its body. */
bool rs_http_expects_continue(const struct rs_http_request *req);

/* --- ingress_limit.c --------------------------------------------------------------------------- */

void rs_http_client_key(const struct sockaddr *peer, uint8_t key[8], uint8_t *len);
/* Answers a routed request that the application's rules refuse. */
void rs_http_enforce(struct rs_http_request *req);
/* Bytes of body that are taken; UINT64_MAX: any. */
uint64_t rs_http_max_body(const struct rs_http_request *req);
/* Notes the cause; returns `out`, the text of the answer. */
const char *rs_http_body_too_large(struct rs_http_request *req, char *out, size_t size);

/* --- ingress_origin.c -------------------------------------------------------------------------- */

/* Whose connection it is. */
void rs_http_origin_open(struct rs_http_conn *c, int fd);
void rs_http_origin_close(struct rs_http_conn *c);
/* For rs_front_conn.on_proxy. */
void rs_http_origin_proxied(struct rs_front_conn *front, const struct rs_proxy_header *h,
                            const struct rs_error *why);
/* CLIENT, SERVER and SCHEME of a request that came through a trusted proxy. */
void rs_http_origin_put(struct rs_http_request *req, const struct rs_http_via *via);

/* --- ingress_header.c -------------------------------------------------------------------------- */

/* The header is there: encodes it, finds the route, or has an answer ready. */
void rs_http_begin(struct rs_http_request *req, const char *method, const char *version);
void rs_http_answer_not_found(struct rs_http_request *req);

/* --- ingress_answer.c -------------------------------------------------------------------------- */

extern const struct rs_reply_ops rs_http_reply;
/* An answer of the ingress itself; the request is not, or no longer, with the router. */
void rs_http_answer_text(struct rs_http_request *req, unsigned status, const char *type,
                         const char *text);
/* Hands the answer that is ready to libmicrohttpd. */
enum MHD_Result rs_http_queue(struct rs_http_request *req);
void rs_http_drop_pieces(struct rs_http_request *req);
/* Takes at most `max` bytes of the first piece. -1: its memfd is shorter than was said. */
ssize_t rs_http_read_piece(struct rs_http_request *req, char *to, size_t max);
/* The same as answer_text, written at once, past libmicrohttpd: it takes no answer while a body is
 * coming in. The connection ends with it. */
void rs_http_cut_off(struct rs_http_request *req, unsigned status, const char *text);

/* --- websocket.c ------------------------------------------------------------------------------- */

/* The answer that accepts the handshake; the session begins when it was sent. */
struct MHD_Response *rs_websocket_response(struct rs_http_request *req, const struct rs_answer *a);
/* More of the answer came, or its end, or credit for the request's body. */
void rs_websocket_kick(struct rs_http_request *req);
/* The answer breaks off. */
void rs_websocket_fail(struct rs_http_request *req, const struct rs_failure *f);
/* The server stops: 1012. Nothing for other requests. */
void rs_websocket_restart(struct rs_http_request *req);
void rs_websocket_cut(struct rs_http_request *req);
void rs_websocket_free(struct rs_websocket *ws); /* NULL is fine; its connection was given back */

/* --- ingress_log.c ----------------------------------------------------------------------------- */

RS_MUST_CHECK int rs_http_log_open(struct rs_http_server *s, struct rs_error *err);
void rs_http_log_close(struct rs_http_server *s);
/* Only where s->log. */
void rs_http_log(struct rs_http_request *req, unsigned status, int64_t now);
void rs_http_log_turn(struct rs_http_server *s);

/* --- ingress_metrics.c ------------------------------------------------------------------------- */

void rs_http_count(struct rs_http_request *req, unsigned status, int64_t now);
/* What a route's requests have in common; freed by rs_http_route_cache_free. */
struct rs_http_route_cache {
    struct rs_buf fields; /* KIND, ROUTE, APP, DEPLOYMENT, ROOT_PATH */
    size_t route_at;      /* of ROUTE's value */
    struct rs_route_target *target;
    struct rs_http_series *series;
    struct rs_buf where;                      /* in the access log */
    struct rs_series *causes[RS_CAUSE_COUNT]; /* NULL: none counted yet */
};
void rs_http_route_cache_free(void *cache);
