/* A replica that sends back what it is sent, but never answers who sends "stick". */
#define RSERVE_REPLICA_IMPLEMENTATION
#include "rserve_replica.h"

#include <string.h>
#include <unistd.h>

static int work(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    if (req->body_len == 5 && memcmp(req->body, "stick", 5) == 0)
        for (;;)
            pause();
    return rserve_respond(res, 200, "text/plain", req->body, req->body_len);
}

int main(void)
{
    struct rserve_options options = {.threads = 4};

    return rserve_serve_with(&options, work, NULL);
}
