#include "net/http/forwarded.h"

#include "core/base/alloc.h"
#include "core/base/error.h"

#include <string.h>
#include <strings.h>

void rs_trusted_init(struct rs_trusted *t, const json_t *list)
{
    size_t most = json_array_size(list);
    const json_t *item;
    size_t i;

    *t = (struct rs_trusted){.networks = rs_alloc((most + 1) * sizeof(struct rs_network))};
    if (!list)
        t->n += rs_network_parse(&t->networks[0], "127.0.0.1") == 0;
    json_array_foreach (list, i, item)
        t->n += json_is_string(item) &&
                rs_network_parse(&t->networks[t->n], json_string_value(item)) == 0;
}

void rs_trusted_fini(struct rs_trusted *t)
{
    free(t->networks);
    *t = (struct rs_trusted){0};
}

bool rs_trusted_has(const struct rs_trusted *t, const struct rs_ip *ip)
{
    for (size_t i = 0; i < t->n; i++) {
        if (rs_network_has(&t->networks[i], ip))
            return true;
    }
    return false;
}

struct piece {
    const char *at;
    size_t len;
};

static struct piece trim(struct piece p)
{
    while (p.len && (p.at[0] == ' ' || p.at[0] == '\t'))
        p.at++, p.len--;
    while (p.len && (p.at[p.len - 1] == ' ' || p.at[p.len - 1] == '\t'))
        p.len--;
    return p;
}

/* Cuts the last element, which a comma divides from the rest, off. Commas in quotes divide nothing: in
 * Forwarded a quote may stand around an address. */
static struct piece last(struct piece *rest)
{
    bool quoted = false;
    size_t i = rest->len;
    struct piece p;

    while (i && (quoted || rest->at[i - 1] != ',')) {
        i--;
        quoted ^= rest->at[i] == '"';
    }
    p = (struct piece){rest->at + i, rest->len - i};
    rest->len = i ? i - 1 : 0;
    return trim(p);
}

/* An address, perhaps with a port, perhaps in quotes. */
static bool address(struct piece p, struct rs_ip *ret)
{
    const char *end;

    if (p.len >= 2 && p.at[0] == '"' && p.at[p.len - 1] == '"')
        p.at++, p.len -= 2;
    if (rs_ip_parse(ret, p.at, p.len) == 0)
        return true;
    end = p.len && p.at[0] == '[' ? memchr(p.at, ']', p.len) : memrchr(p.at, ':', p.len);
    if (!end)
        return false;
    return rs_ip_parse(ret, p.at, (size_t)(end - p.at) + (*end == ']')) == 0;
}

bool rs_forwarded_for(const struct rs_trusted *t, const char *text, size_t len,
                      struct rs_ip *client)
{
    struct piece rest = {text, len};
    bool found = false;
    struct rs_ip ip;

    while (rest.len) {
        struct piece p = last(&rest);

        if (!p.len)
            continue;
        if (!address(p, &ip))
            break; /* "unknown", or a name: what is before it is not known to be true */
        *client = ip;
        found = true;
        if (!rs_trusted_has(t, &ip))
            break;
    }
    return found;
}

static const char *scheme(struct piece p)
{
    static const char *const secure[] = {"https", "wss"}, *const plain[] = {"http", "ws"};

    if (p.len >= 2 && p.at[0] == '"' && p.at[p.len - 1] == '"')
        p.at++, p.len -= 2;
    for (size_t i = 0; i < 2; i++) {
        if (strlen(secure[i]) == p.len && strncasecmp(p.at, secure[i], p.len) == 0)
            return "https";
        if (strlen(plain[i]) == p.len && strncasecmp(p.at, plain[i], p.len) == 0)
            return "http";
    }
    return NULL;
}

const char *rs_forwarded_proto(const char *text, size_t len)
{
    struct piece rest = {text, len};

    return scheme(last(&rest));
}

/* The value of `name` in "name=value;name=value". */
static struct piece parameter(struct piece p, const char *name)
{
    size_t n = strlen(name);

    while (p.len) {
        const char *end = memchr(p.at, ';', p.len);
        struct piece one = trim((struct piece){p.at, end ? (size_t)(end - p.at) : p.len});

        if (one.len > n && one.at[n] == '=' && strncasecmp(one.at, name, n) == 0)
            return (struct piece){one.at + n + 1, one.len - n - 1};
        p.len -= end ? (size_t)(end - p.at) + 1 : p.len;
        p.at = end ? end + 1 : p.at;
    }
    return (struct piece){"", 0};
}

bool rs_forwarded(const struct rs_trusted *t, const char *text, size_t len, struct rs_ip *client,
                  const char **proto)
{
    struct piece rest = {text, len};
    bool found = false;

    while (rest.len) {
        struct piece p = last(&rest);
        const char *said = scheme(parameter(p, "proto"));
        struct rs_ip ip;

        if (!p.len)
            continue;
        if (said)
            *proto = said;
        if (!address(parameter(p, "for"), &ip))
            break;
        *client = ip;
        found = true;
        if (!rs_trusted_has(t, &ip))
            break;
    }
    return found;
}
