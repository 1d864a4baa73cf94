/* What a node, or whoever holds its socket, sends to a replica in C; and the header's JSON reader. */
#define RSERVE_REPLICA_IMPLEMENTATION
#include "sched/rserve_replica.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int handle(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    const char *type = rserve_header(req, "content-type");

    assert(strlen(req->path) + strlen(req->query) + strlen(req->id) < 2u << 20);
    if (req->body_len % 3 == 0)
        return rserve_respond(res, 200, type, req->body, req->body_len < 99 ? req->body_len : 99);
    if (req->body_len % 3 == 1)
        return rserve_fail(res, RSERVE_USER, "ValueError", req->method);
    rserve_stream_begin(res, 200, type);
    rserve_stream_chunk(res, "x", 1);
    return rserve_stream_end(res);
}

static int init(const struct rserve_init *in, char *why, size_t size, void *arg)
{
    char text[16];

    (void)rserve_json_text(in->json, in->json_len, "config.user_config.0", text, sizeof(text));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rserve_options options = {.init = init, .max_body = 1 << 20};
    int fds[2], room = 4 << 20;

    if (size > 8192 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
        return 0;
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
    if (send(fds[0], data, size, MSG_NOSIGNAL) != (ssize_t)size)
        abort();
    shutdown(fds[0], SHUT_WR); /* it reads to the end, then it has to leave */
    (void)rserve_serve_on(fds[1], &options, handle, NULL);
    close(fds[0]);
    return 0;
}
