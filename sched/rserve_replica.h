/* rserve_replica.h: a replica of rserve in C or C++, in one header that needs nothing but libc.
 *
 *     #define RSERVE_REPLICA_IMPLEMENTATION // in one source file, before other includes
 *     #include "rserve_replica.h"
 *
 *     static int hello(const struct rserve_request *req, struct rserve_response *res, void *arg)
 *     {
 *         return rserve_respond(res, 200, "text/plain", "hello\n", 6);
 *     }
 *
 *     int main(void)
 *     {
 *         return rserve_serve(hello, NULL);
 *     }
 *
 * In app.yaml it is a deployment with `rserve: {kind: exec, command: [./hello]}`. It is reached by
 * HTTP through its application's route, and by `handle.remote(...)` from any other deployment.
 *
 * Requests:  a body arrives whole, up to max_body bytes. What a handler is given lives until it
 *            returns. Texts end with a NUL and are never NULL (absent: "").
 * Calls:     `await handle.remote(b"...")` from Python arrives as a request with kind RSERVE_CALL, its
 *            one argument, bytes or str, as the body; what rserve_respond sends is returned there as
 *            bytes. Other arguments are refused with a TypeError before the handler is asked, unless
 *            raw_calls is set: then the body is the pickle itself and so must the answer be.
 *            A call with another content type is passed through, bytes in, bytes out.
 * Threads:   with options.threads 0 handlers run one at a time on the thread that reads the socket:
 *            the fastest way for short work. Work of more than a few seconds should use threads, or
 *            call rserve_cancelled now and then: that answers the node's health checks too. With
 *            threads n, up to n handlers run at once; each uses its own rserve_response only.
 * Errors:    functions return 0, or -1 when the answer can no longer be delivered (cancelled, peer
 *            gone) or was given in a wrong order; a handler may ignore that. A handler that returns
 *            other than 0 without an answer makes the request fail. Out of memory ends the process.
 * Building:  C99 or later, C++11 or later, Linux. With glibc before 2.34 link with -pthread.
 * Source:    in rserve's own tree it is kept in four parts, beside this one; the build joins them to the
 *            one file that is installed and can be copied.
 * The protocol itself is net/wire/PROTOCOL.md; this is version 1.
 */
#if defined(RSERVE_REPLICA_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif

#ifndef RSERVE_REPLICA_H
#define RSERVE_REPLICA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum rserve_kind { RSERVE_HTTP = 1, RSERVE_CALL = 2 };

enum rserve_error {
    RSERVE_USER = 1,
    RSERVE_BACKPRESSURE,
    RSERVE_UNAVAILABLE,
    RSERVE_CANCELLED,
    RSERVE_TIMEOUT,
    RSERVE_DIED,
    RSERVE_NOT_FOUND,
    RSERVE_PROTOCOL,
    RSERVE_TOO_LARGE,
    RSERVE_INTERNAL
};

struct rserve_request {
    enum rserve_kind kind;
    const char *id; /* what the client sees as x-request-id */
    const char *app, *deployment;
    const char *method;                     /* of a call: "__call__" unless another was named */
    const char *http_method, *path, *query; /* raw: percent-encoding kept */
    const char *route, *root_path, *client, *server, *scheme, *http_version;
    const char *content_type;
    const char *model_id, *session_id, *traceparent;
    const char *headers; /* name NUL value NUL ...; see rserve_header */
    size_t headers_len;
    const char *body; /* no NUL at its end */
    size_t body_len;
    int body_fd;         /* the body as a file, if it came as one (over 64 KiB); else -1 */
    uint32_t timeout_ms; /* left for the whole request; 0: no limit */
    int wants_stream;    /* the caller iterates: send the items as chunks */
};

struct rserve_response;

typedef int rserve_handler(const struct rserve_request *req, struct rserve_response *res,
                           void *arg);

struct rserve_init {
    const char *app, *deployment, *replica_id;
    const char *json; /* the whole INIT message; see rserve_json */
    size_t json_len;
};

/* All zero is a good default. Callbacks return 0, or -1 with one line in `why`. */
struct rserve_options {
    int (*init)(const struct rserve_init *init, char *why, size_t size, void *arg);
    int (*reconfigure)(const char *json, size_t len, char *why, size_t size, void *arg);
    int (*check_health)(char *why, size_t size, void *arg);
    void (*stop)(void *arg);    /* the last call, after the last request */
    const char *const *methods; /* names that may be called, NULL at the end; NULL: any */
    size_t max_body;            /* bytes; 0: 1 GiB */
    unsigned threads;
    int raw_calls;
};

/* Until the node says stop (0) or something breaks (1, with a line on stderr): main's answer. */
int rserve_serve(rserve_handler *handler, void *arg);
int rserve_serve_with(const struct rserve_options *options, rserve_handler *handler, void *arg);
/* On this connected Unix socket instead of the one in RSERVE_FD; closes it. */
int rserve_serve_on(int fd, const struct rserve_options *options, rserve_handler *handler,
                    void *arg);

/* The value of a header, "" if there is none; names are in lower case. */
const char *rserve_header(const struct rserve_request *req, const char *name);

/* The answer, whole. Of a call's answer only content_type and body count. */
int rserve_respond(struct rserve_response *res, int status, const char *content_type,
                   const void *body, size_t len);
/* Before the answer begins; `name` in lower case. HTTP only. */
int rserve_add_header(struct rserve_response *res, const char *name, const char *value);
/* No answer, but an error; `type` is the name of an exception, such as "ValueError". */
int rserve_fail(struct rserve_response *res, enum rserve_error code, const char *type,
                const char *message);
/* The answer in pieces. A chunk waits while the client does not take what was sent. */
int rserve_stream_begin(struct rserve_response *res, int status, const char *content_type);
int rserve_stream_chunk(struct rserve_response *res, const void *data, size_t len);
int rserve_stream_end(struct rserve_response *res);
/* Does no one want the answer any more? Also answers what the node asks meanwhile. */
int rserve_cancelled(struct rserve_response *res);

/* A call to another deployment, on behalf of the request that `res` answers. */
struct rserve_call_args {
    const char *app;          /* NULL: this one */
    const char *deployment;   /* its name */
    const char *method;       /* NULL: __call__ */
    const char *content_type; /* NULL: the body is the one argument of type bytes */
    const void *body;
    size_t body_len;
    uint32_t timeout_ms; /* 0: no limit */
};

struct rserve_answer {
    char *body; /* if it was bytes or str: that; else as it came. Also of an error. */
    size_t body_len;
    enum rserve_error error; /* set on failure, with the two texts */
    char error_type[64], message[256];
    void *memory; /* what rserve_answer_free releases */
};

/* Waits for the answer. 0, or -1 with the error filled in; free the answer in both cases. */
int rserve_call(struct rserve_response *res, const struct rserve_call_args *call,
                struct rserve_answer *ret);
void rserve_answer_free(struct rserve_answer *answer);

/* The raw text of a member, "config.user_config.sizes.0", of a JSON document; NULL: none. */
const char *rserve_json(const char *json, size_t len, const char *path, size_t *ret_len);
/* The same copied with a NUL, a string without its quotes and escapes. Its length, or -1 if it is
 * absent, null or does not fit. */
long rserve_json_text(const char *json, size_t len, const char *path, char *buf, size_t size);

#ifdef __cplusplus
}
#endif

#endif

#if defined(RSERVE_REPLICA_IMPLEMENTATION) && !defined(RSERVE_REPLICA_IMPLEMENTED)
#define RSERVE_REPLICA_IMPLEMENTED
#include "rserve_replica_io.h"
#include "rserve_replica_request.h"
#include "rserve_replica_serve.h"
#endif
