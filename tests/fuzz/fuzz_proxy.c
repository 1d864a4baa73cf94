/* What stands in front of a request: a PROXY header, and what proxies say of the client. The first byte
 * tells which. Any beginning of a header that is accepted must ask for more, or be refused as well. */
#include "net/http/forwarded.h"
#include "net/http/proxy_protocol.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of just this size, so that a sanitizer sees what is read behind it. */
static int parse(const char *data, size_t n, size_t *used, struct rs_proxy_header *ret)
{
    char *copy = malloc(n + 1);
    struct rs_error err = {0};
    int r;

    memcpy(copy, data, n);
    r = rs_proxy_header_parse(copy, n, used, ret, &err);
    assert((r == -1) == (err.msg[0] != '\0'));
    free(copy);
    return r;
}

static void proxy(const char *data, size_t n)
{
    struct rs_proxy_header h = {0}, again = {0};
    size_t used = 0, used_again = 0;
    int r = parse(data, n, &used, &h);

    if (r == 0) {
        assert(used > 0 && used <= n && used <= RS_PROXY_HEADER_MAX);
        assert(parse(data, used, &used_again, &again) == 0 && used_again == used);
        assert(memcmp(&h, &again, sizeof(h)) == 0);
        for (size_t cut = 0; cut < used && cut < 200; cut++)
            assert(parse(data, cut, &used_again, &again) == RS_PROXY_MORE);
    } else if (r == RS_PROXY_MORE) {
        assert(n < RS_PROXY_HEADER_MAX);
    }
}

static void forwarded(const struct rs_trusted *t, const char *data, size_t n, bool rfc)
{
    char *copy = malloc(n + 1);
    const char *proto = NULL;
    struct rs_ip ip = {0};
    char text[RS_IP_TEXT];
    struct rs_ip back;
    bool found;

    memcpy(copy, data, n);
    if (rfc) {
        found = rs_forwarded(t, copy, n, &ip, &proto);
    } else {
        found = rs_forwarded_for(t, copy, n, &ip);
        proto = rs_forwarded_proto(copy, n);
    }
    assert(!proto || strcmp(proto, "http") == 0 || strcmp(proto, "https") == 0);
    if (found) {
        rs_ip_print(&ip, text);
        assert(rs_ip_parse(&back, text, strlen(text)) == 0);
        assert(memcmp(&ip, &back, sizeof(ip)) == 0);
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct rs_trusted trusted;
    json_t *list;

    if (!trusted.networks) {
        list = json_pack("[s, s, s]", "127.0.0.1", "10.0.0.0/8", "2001:db8::/33");
        rs_trusted_init(&trusted, list);
        json_decref(list);
    }
    if (size && data[0] == 'x')
        forwarded(&trusted, (const char *)data + 1, size - 1, false);
    else if (size && data[0] == 'f')
        forwarded(&trusted, (const char *)data + 1, size - 1, true);
    else
        proxy((const char *)data, size);
    return 0;
}
