#include "net/http/proxy_protocol.h"

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

enum { LINE_MAX_1 = 107, HEAD_2 = 16, LOCAL = 0, PROXY = 1, TCP4 = 0x11, TCP6 = 0x21 };

static const char signature[12] = "\r\n\r\n\0\r\nQUIT\n";

static void set_v4(struct rs_address *a, const void *ip, uint16_t port)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = port};

    memcpy(&sa.sin_addr, ip, 4);
    *a = (struct rs_address){.len = sizeof(sa)};
    memcpy(&a->sa, &sa, sizeof(sa));
}

static void set_v6(struct rs_address *a, const void *ip, uint16_t port)
{
    struct sockaddr_in6 sa = {.sin6_family = AF_INET6, .sin6_port = port};

    memcpy(&sa.sin6_addr, ip, 16);
    *a = (struct rs_address){.len = sizeof(sa)};
    memcpy(&a->sa, &sa, sizeof(sa));
}

/* --- version 1 --------------------------------------------------------------------------------- */

/* Cuts the next word off; NULL: there is none. Words are divided by one blank. */
static char *word(char **at)
{
    char *w = *at, *end = w ? strchr(w, ' ') : NULL;

    if (!w || !*w || *w == ' ')
        return NULL;
    if (end)
        *end = '\0';
    *at = end ? end + 1 : NULL;
    return w;
}

/* 0 to 65535 without a leading zero; -1: it is none. */
static int port_of(const char *text)
{
    int n = 0;

    if (!text || !*text || (text[0] == '0' && text[1]) || strlen(text) > 5)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        n = n * 10 + (*text - '0');
    }
    return n <= 65535 ? n : -1;
}

/* What follows "PROXY ". */
static bool parse_line(char *at, struct rs_proxy_header *ret)
{
    const char *family = word(&at), *ip[2];
    unsigned char bytes[2][16];
    int port[2];
    bool v4 = family && strcmp(family, "TCP4") == 0;

    if (family && strcmp(family, "UNKNOWN") == 0)
        return true; /* whatever follows */
    if (!v4 && (!family || strcmp(family, "TCP6") != 0))
        return false;
    for (int i = 0; i < 2; i++) {
        ip[i] = word(&at);
        if (!ip[i] || inet_pton(v4 ? AF_INET : AF_INET6, ip[i], bytes[i]) != 1)
            return false;
    }
    for (int i = 0; i < 2; i++) {
        port[i] = port_of(word(&at));
        if (port[i] < 0)
            return false;
    }
    if (at)
        return false;
    ret->known = true;
    (v4 ? set_v4 : set_v6)(&ret->client, bytes[0], htons((uint16_t)port[0]));
    (v4 ? set_v4 : set_v6)(&ret->server, bytes[1], htons((uint16_t)port[1]));
    return true;
}

static int parse_1(const char *data, size_t n, size_t *used, struct rs_proxy_header *ret,
                   struct rs_error *err)
{
    static const char intro[] = "PROXY ";
    size_t most = n < LINE_MAX_1 ? n : LINE_MAX_1;
    const char *end = memchr(data, '\n', most);
    struct rs_proxy_header got = {0};
    char line[LINE_MAX_1 + 1];
    size_t len;

    if (memcmp(data, intro, n < sizeof(intro) - 1 ? n : sizeof(intro) - 1) != 0)
        return rs_error_set(err, RS_INVALID, "expected a PROXY header, got something else");
    if (!end && n < LINE_MAX_1)
        return RS_PROXY_MORE;
    len = end ? (size_t)(end - data) : 0;
    if (len < sizeof(intro) || end[-1] != '\r' || memchr(data, '\0', len))
        return rs_error_set(err, RS_INVALID, "a PROXY header that is no line of at most %d bytes",
                            LINE_MAX_1);
    memcpy(line, data, len - 1);
    line[len - 1] = '\0';
    if (!parse_line(line + sizeof(intro) - 1, &got))
        return rs_error_set(err, RS_INVALID, "a malformed PROXY header");
    *ret = got;
    *used = len + 1;
    return 0;
}

/* --- version 2 --------------------------------------------------------------------------------- */

static uint16_t raw_16(const unsigned char *p)
{
    uint16_t v;

    memcpy(&v, p, 2);
    return v;
}

static int parse_2(const unsigned char *p, size_t n, size_t *used, struct rs_proxy_header *ret,
                   struct rs_error *err)
{
    struct rs_proxy_header got = {0};
    unsigned command, family;
    size_t len;

    if (n < HEAD_2)
        return RS_PROXY_MORE;
    command = p[12] & 15u;
    family = p[13];
    len = (size_t)p[14] << 8 | p[15];
    if (p[12] >> 4 != 2 || command > PROXY)
        return rs_error_set(err, RS_INVALID, "a PROXY header of version %u, command %u",
                            (unsigned)p[12] >> 4, command);
    if (HEAD_2 + len > RS_PROXY_HEADER_MAX)
        return rs_error_set(err, RS_INVALID, "a PROXY header of %zu bytes", HEAD_2 + len);
    if (command == PROXY && ((family == TCP4 && len < 12) || (family == TCP6 && len < 36)))
        return rs_error_set(err, RS_INVALID, "a PROXY header without its addresses");
    if (n < HEAD_2 + len)
        return RS_PROXY_MORE;
    if (command == PROXY && family == TCP4) {
        set_v4(&got.client, p + 16, raw_16(p + 24));
        set_v4(&got.server, p + 20, raw_16(p + 26));
        got.known = true;
    } else if (command == PROXY && family == TCP6) {
        set_v6(&got.client, p + 16, raw_16(p + 48));
        set_v6(&got.server, p + 32, raw_16(p + 50));
        got.known = true;
    }
    *ret = got;
    *used = HEAD_2 + len;
    return 0;
}

int rs_proxy_header_parse(const char *data, size_t n, size_t *used, struct rs_proxy_header *ret,
                          struct rs_error *err)
{
    size_t common = n < sizeof(signature) ? n : sizeof(signature);

    if (!n)
        return RS_PROXY_MORE;
    if (memcmp(data, signature, common) == 0)
        return parse_2((const unsigned char *)data, n, used, ret, err);
    return parse_1(data, n, used, ret, err);
}
