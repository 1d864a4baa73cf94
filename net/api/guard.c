#include "net/api/guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { UNAUTHORIZED = 401, FORBIDDEN = 403 };

/* The name of "name:port", "[v6]:port" or either without a port. */
static bool host_name(const char *host, char *out, size_t size)
{
    const char *from = host[0] == '[' ? host + 1 : host;
    size_t n = host[0] == '[' ? strcspn(from, "]") : strcspn(from, ":");

    if (n == 0 || n >= size)
        return false;
    memcpy(out, from, n);
    out[n] = '\0';
    return true;
}

/* Names that no foreign page can have made point here. */
static bool is_own_name(const struct rs_guard *g, const char *host)
{
    unsigned char address[16];
    char name[256];

    if (!host_name(host, name, sizeof(name)))
        return false;
    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1 ||
           strcasecmp(name, "localhost") == 0 ||
           (g->hostname && g->hostname[0] && strcasecmp(name, g->hostname) == 0);
}

static bool is_same_origin(const char *origin, const char *host)
{
    const char *authority = strstr(origin, "://");

    return authority && host && strcasecmp(authority + 3, host) == 0;
}

/* Looks at every byte, so that the time tells nothing about the token. */
static bool same_token(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned char diff = n != m;

    for (size_t i = 0; i < n; i++)
        diff |= (unsigned char)a[i] ^ (unsigned char)(i < m ? b[i] : 0);
    return diff == 0;
}

static bool has_token(const struct rs_guard *g, const struct rs_guard_facts *f)
{
    return g->token && g->token[0] && f->authorization &&
           strncasecmp(f->authorization, "Bearer ", 7) == 0 &&
           same_token(f->authorization + 7, g->token);
}

int rs_guard_check(const struct rs_guard *g, const struct rs_guard_facts *f, char *why, size_t size)
{
    if (f->changes && f->origin && !is_same_origin(f->origin, f->host)) {
        snprintf(why, size, "a page of %.100s may not change what runs here (Origin header)",
                 f->origin);
        return FORBIDDEN;
    }
    if (has_token(g, f))
        return 0;
    if (f->host && (g->loopback || f->changes) && !is_own_name(g, f->host)) {
        snprintf(why, size,
                 "expected an IP address, localhost or this machine's name as Host, got %.100s",
                 f->host);
        return FORBIDDEN;
    }
    if (!f->changes || g->loopback || f->peer_is_loopback)
        return 0;
    if (!g->token || !g->token[0]) {
        snprintf(why, size,
                 "no token is configured, so only this machine may change what runs here");
        return FORBIDDEN;
    }
    snprintf(why, size, "expected the header \"Authorization: Bearer TOKEN\" with %s token",
             f->authorization ? "the right" : "a");
    return f->authorization ? FORBIDDEN : UNAUTHORIZED;
}
