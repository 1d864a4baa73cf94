/* Who a connection and a request come from: the peer of the socket, whom a PROXY header names, or whom a
 * trusted proxy's headers name. */
#include "core/base/alloc.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "net/http/ingress-internal.h"

#include <stdio.h>
#include <string.h>

static void put_address(struct rs_buf *b, enum rs_tag tag, const struct rs_address *a)
{
    char text[80];

    rs_address_print(a, text, sizeof(text));
    rs_field_put_str(b, tag, text);
}

static void set_peer(struct rs_http_conn *c, const struct rs_address *peer,
                     const struct rs_address *local)
{
    const struct rs_http_server *s = c->server;
    struct rs_ip ip;

    rs_buf_clear(&c->fields);
    c->trusted = false;
    if (peer) {
        put_address(&c->fields, RS_TAG_CLIENT, peer);
        rs_http_client_key((const struct sockaddr *)&peer->sa, c->client, &c->client_len);
        c->trusted = rs_ip_of(&ip, (const struct sockaddr *)&peer->sa) == 0 &&
                     rs_trusted_has(&s->trusted, &ip);
    }
    c->server_at = rs_buf_len(&c->fields);
    if (local)
        put_address(&c->fields, RS_TAG_SERVER, local);
    c->scheme_at = rs_buf_len(&c->fields);
    rs_field_put_str(&c->fields, RS_TAG_SCHEME, s->front.tls ? "https" : "http");
}

void rs_http_origin_open(struct rs_http_conn *c, int fd)
{
    struct rs_address peer = {.len = sizeof(peer.sa)}, local = {.len = sizeof(local.sa)};
    bool has_peer = getpeername(fd, (struct sockaddr *)&peer.sa, &peer.len) == 0;
    bool has_local = getsockname(fd, (struct sockaddr *)&local.sa, &local.len) == 0;

    set_peer(c, has_peer ? &peer : NULL, has_local ? &local : NULL);
}

void rs_http_origin_proxied(struct rs_front_conn *front, const struct rs_proxy_header *h,
                            const struct rs_error *why)
{
    struct rs_http_conn *c = front->owner;
    struct rs_http_server *s = c->server;
    int64_t now = rs_loop_now(s->lane->loop);
    struct rs_fields f;

    if (h) {
        if (h->known)
            set_peer(c, &h->client, &h->server);
        return;
    }
    if (s->told_at && now - s->told_at < RS_SEC)
        return; /* one line a second will do */
    s->told_at = now;
    if (rs_fields_parse(rs_buf_head(&c->fields), rs_buf_len(&c->fields), &f, NULL) == 0)
        rs_log_warn("a connection without a PROXY header was closed", "peer=%.*s error=\"%s\"",
                    (int)f.at[RS_TAG_CLIENT].len,
                    f.at[RS_TAG_CLIENT].data ? f.at[RS_TAG_CLIENT].data : "", why->msg);
}

void rs_http_origin_close(struct rs_http_conn *c)
{
    rs_buf_fini(&c->fields);
    free(c->origin);
}

/* --- of a request ------------------------------------------------------------------------------ */

static void set_client(struct rs_http_conn *c, const struct rs_ip *ip)
{
    struct rs_http_origin *o = c->origin ? c->origin : rs_alloc(sizeof(*o));
    char text[RS_IP_TEXT];

    rs_ip_print(ip, text);
    snprintf(o->client, sizeof(o->client), rs_ip_is_v4(ip) ? "%s:0" : "[%s]:0", text);
    o->key_len = rs_ip_is_v4(ip) ? 4 : 8;
    memcpy(o->key, rs_ip_is_v4(ip) ? ip->bytes + 12 : ip->bytes, o->key_len);
    c->origin = o;
}

void rs_http_origin_put(struct rs_http_request *req, const struct rs_http_via *via)
{
    struct rs_http_conn *c = req->conn;
    const struct rs_trusted *t = &req->server->trusted;
    const char *scheme = NULL, *at = rs_buf_head(&c->fields);
    struct rs_buf *meta = &req->r.meta;
    struct rs_ip ip;

    if (rs_buf_len(&via->chain) || rs_buf_len(&via->proto)) {
        scheme = rs_forwarded_proto(rs_buf_text(&via->proto), rs_buf_len(&via->proto));
        req->forwarded =
            rs_forwarded_for(t, rs_buf_text(&via->chain), rs_buf_len(&via->chain), &ip);
    } else if (rs_buf_len(&via->forwarded)) {
        req->forwarded = rs_forwarded(t, rs_buf_text(&via->forwarded), rs_buf_len(&via->forwarded),
                                      &ip, &scheme);
    }
    if (req->forwarded) {
        set_client(c, &ip);
        rs_field_put_str(meta, RS_TAG_CLIENT, c->origin->client);
    } else {
        rs_buf_append(meta, at, c->server_at);
    }
    rs_buf_append(meta, at + c->server_at, c->scheme_at - c->server_at);
    if (scheme)
        rs_field_put_str(meta, RS_TAG_SCHEME, scheme);
    else
        rs_buf_append(meta, at + c->scheme_at, rs_buf_len(&c->fields) - c->scheme_at);
}
