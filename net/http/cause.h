/* Why the ingress itself gave an answer, or none: for metrics and the access log. */
#pragma once

/* The name is the label `cause` of rserve_http_refused_requests_total. */
#define RS_HTTP_CAUSES(X)                                                                          \
    X(NONE, "")                                                                                    \
    X(BAD_REQUEST, "bad_request")           /* it is no HTTP that can be served */                 \
    X(HEADER_TOO_LARGE, "header_too_large") /* 431 */                                              \
    X(BODY_TOO_LARGE, "body_too_large")     /* 413 */                                              \
    X(RATE_LIMITED, "rate_limited")         /* 429 */                                              \
    X(NO_ROUTE, "no_route")                 /* 404: no application takes the path */               \
    X(TIMEOUT, "timeout")                   /* 408: its time is over */                            \
    X(QUEUE_FULL, "queue_full")             /* 503 or 429: max_queued_requests */                  \
    X(MEMORY, "memory")                     /* 503: too much is held for others */                 \
    X(UNAVAILABLE, "unavailable")           /* 503: nothing runs that could take it */             \
    X(EXCEPTION, "exception")               /* 500: the user's code raised */                      \
    X(REPLICA_DIED, "replica_died")         /* its replica ended before the answer */              \
    X(INTERNAL, "internal")                 /* 500: anything else */                               \
    X(CLIENT_GONE, "client_gone")           /* 499: nobody waits for the answer */

enum rs_http_cause {
#define RS_X(name, text) RS_CAUSE_##name,
    RS_HTTP_CAUSES(RS_X)
#undef RS_X
        RS_CAUSE_COUNT
};

const char *rs_http_cause_name(enum rs_http_cause cause);
