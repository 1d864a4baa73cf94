/* A replica in C: sends back what it is sent. */
#define RSERVE_REPLICA_IMPLEMENTATION
#include "rserve_replica.h"

static int echo(const struct rserve_request *req, struct rserve_response *res, void *arg)
{
    return rserve_respond(res, 200, req->content_type, req->body, req->body_len);
}

int main(void)
{
    return rserve_serve(echo, NULL);
}
