/* What the rules of the application refuse before the body of a request is read: too many requests, too
 * large a body. */
#include "core/base/clock.h"
#include "core/model/policy.h"
#include "net/http/ingress-internal.h"
#include "net/router/rules.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* A body that is no longer is read, so that the connection can be used again. */
enum { READ_ANYWAY = 64 << 10 };

void rs_http_client_key(const struct sockaddr *peer, uint8_t key[8], uint8_t *len)
{
    const struct sockaddr_in *v4 = (const void *)peer;
    const struct sockaddr_in6 *v6 = (const void *)peer;

    *len = 0;
    if (peer->sa_family == AF_INET) {
        memcpy(key, &v4->sin_addr, 4);
        *len = 4;
    } else if (peer->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        memcpy(key, v6->sin6_addr.s6_addr + 12, 4);
        *len = 4;
    } else if (peer->sa_family == AF_INET6) { /* who has one address of a /64 has all of them */
        memcpy(key, v6->sin6_addr.s6_addr, 8);
        *len = 8;
    }
}

static const void *who(const struct rs_http_request *req, const struct rs_rate_limit *limit,
                       size_t *len)
{
    const char *value = NULL;

    *len = 0;
    switch (limit->key) {
    case RS_RATE_CLIENT:
        *len = req->forwarded ? req->conn->origin->key_len : req->conn->client_len;
        return req->forwarded ? req->conn->origin->key : req->conn->client;
    case RS_RATE_HEADER:
        value = MHD_lookup_connection_value(req->mc, MHD_HEADER_KIND, limit->header);
        *len = value ? strlen(value) : 0;
        while (*len && (value[*len - 1] == ' ' || value[*len - 1] == '\t'))
            --*len;
        break;
    case RS_RATE_ALL:
        break;
    }
    return value ? value : "";
}

/* A client that is about to send a body in vain is told at once. */
static void refuse(struct rs_http_request *req, unsigned status, const char *text)
{
    static const char plain[] = "text/plain; charset=utf-8";
    bool much = req->has_length && req->content_length > READ_ANYWAY;

    if (much && !rs_http_expects_continue(req))
        rs_http_cut_off(req, status, text);
    else
        rs_http_answer_text(req, status, plain, text);
}

static bool over_rate(struct rs_http_request *req)
{
    struct rs_rules *rules = req->route->rules;
    const struct rs_rate_limit *limit = &rules->policy->limits[req->policy->limit];
    size_t len;
    const void *key = who(req, limit, &len);
    int64_t wait =
        rs_rules_take(rules, req->policy, key, len, rs_loop_now(req->server->lane->loop));
    char text[100];

    if (!wait)
        return false;
    req->cause = RS_CAUSE_RATE_LIMITED;
    req->bad_why = "Too many requests.";
    req->retry_after = (wait + RS_SEC - 1) / RS_SEC;
    snprintf(text, sizeof(text), "Too many requests; try again in %" PRId64 " s.",
             req->retry_after);
    refuse(req, MHD_HTTP_TOO_MANY_REQUESTS, text);
    return true;
}

uint64_t rs_http_max_body(const struct rs_http_request *req)
{
    uint64_t node = req->server->conf->max_body;

    return node && node < req->policy->max_body ? node : req->policy->max_body;
}

const char *rs_http_body_too_large(struct rs_http_request *req, char *out, size_t size)
{
    req->cause = RS_CAUSE_BODY_TOO_LARGE;
    req->bad_why = "Request body is too large.";
    snprintf(out, size, "Request body is too large: at most %" PRIu64 " bytes are taken here.",
             rs_http_max_body(req));
    return out;
}

void rs_http_enforce(struct rs_http_request *req)
{
    char text[100];

    if (req->policy->limit >= 0 && over_rate(req))
        return;
    if (req->has_length && req->content_length > rs_http_max_body(req))
        refuse(req, MHD_HTTP_CONTENT_TOO_LARGE, rs_http_body_too_large(req, text, sizeof(text)));
}
