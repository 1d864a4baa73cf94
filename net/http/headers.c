#include "net/http/headers.h"

#include "core/base/error.h"

#include <string.h>
#include <strings.h>

bool rs_http_headers_next(struct rs_http_headers *h)
{
    const char *nul = h->at < h->end ? memchr(h->at, '\0', (size_t)(h->end - h->at)) : NULL;
    const char *value = nul ? nul + 1 : h->end;

    nul = value < h->end ? memchr(value, '\0', (size_t)(h->end - value)) : NULL;
    if (!nul)
        return false;
    h->name = h->at;
    h->value = value;
    h->at = nul + 1;
    return true;
}

const char *rs_http_header(const char *data, size_t len, const char *name)
{
    struct rs_http_headers h = rs_http_headers(data, len);

    while (rs_http_headers_next(&h))
        if (strcasecmp(h.name, name) == 0)
            return h.value;
    return NULL;
}

bool rs_http_hop_by_hop(const char *name)
{
    static const char *const names[] = {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    };

    for (size_t i = 0; i < RS_COUNT(names); i++)
        if ((name[0] | 0x20) == names[i][0] && strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

bool rs_http_has_token(const char *list, const char *token)
{
    size_t len = strlen(token);

    while (*list) {
        size_t n;

        list += strspn(list, " \t,");
        n = strcspn(list, " \t,;");
        if (n == len && strncasecmp(list, token, len) == 0)
            return true;
        list += n;
        list += strcspn(list, ",");
    }
    return false;
}

bool rs_http_header_ok(const char *name, const char *value)
{
    static const char marks[] = "!#$%&'*+-.^_`|~";

    if (!*name)
        return false;
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              strchr(marks, c)))
            return false;
    }
    for (; *value; value++)
        if (((unsigned char)*value < ' ' && *value != '\t') || *value == 0x7f)
            return false;
    return true;
}
