#include "core/base/network.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

int rs_ip_parse(struct rs_ip *ret, const char *text, size_t len)
{
    char copy[INET6_ADDRSTRLEN];
    struct in6_addr v6;
    struct in_addr v4;

    if (len >= 2 && text[0] == '[' && text[len - 1] == ']')
        text++, len -= 2;
    if (!len || len >= sizeof(copy) || memchr(text, '\0', len))
        return -1;
    memcpy(copy, text, len);
    copy[len] = '\0';
    if (inet_pton(AF_INET, copy, &v4) == 1) {
        memcpy(ret->bytes, mapped, sizeof(mapped));
        memcpy(ret->bytes + 12, &v4, 4);
        return 0;
    }
    if (inet_pton(AF_INET6, copy, &v6) != 1)
        return -1;
    memcpy(ret->bytes, &v6, 16);
    return 0;
}

int rs_ip_of(struct rs_ip *ret, const struct sockaddr *sa)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (sa->sa_family == AF_INET) {
        memcpy(&v4, sa, sizeof(v4));
        memcpy(ret->bytes, mapped, sizeof(mapped));
        memcpy(ret->bytes + 12, &v4.sin_addr, 4);
        return 0;
    }
    if (sa->sa_family != AF_INET6)
        return -1;
    memcpy(&v6, sa, sizeof(v6));
    memcpy(ret->bytes, &v6.sin6_addr, 16);
    return 0;
}

bool rs_ip_is_v4(const struct rs_ip *ip)
{
    return memcmp(ip->bytes, mapped, sizeof(mapped)) == 0;
}

void rs_ip_print(const struct rs_ip *ip, char out[RS_IP_TEXT])
{
    bool v4 = rs_ip_is_v4(ip);

    out[0] = '\0';
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip->bytes + 12 : ip->bytes, out, RS_IP_TEXT);
}

int rs_network_parse(struct rs_network *ret, const char *text)
{
    const char *slash = strchr(text, '/');
    struct rs_network n = {.bits = 128};
    unsigned bits = 0, most;

    if (rs_ip_parse(&n.base, text, slash ? (size_t)(slash - text) : strlen(text)) < 0)
        return -1;
    most = rs_ip_is_v4(&n.base) ? 32 : 128;
    if (slash) {
        const char *p = slash + 1;

        if (!*p || strlen(p) > 3)
            return -1;
        for (; *p; p++) {
            if (*p < '0' || *p > '9')
                return -1;
            bits = bits * 10 + (unsigned)(*p - '0');
        }
        if (bits > most)
            return -1;
        n.bits = 128 - most + bits;
    }
    *ret = n;
    return 0;
}

bool rs_network_has(const struct rs_network *n, const struct rs_ip *ip)
{
    unsigned whole = n->bits / 8, rest = n->bits % 8;

    if (memcmp(n->base.bytes, ip->bytes, whole) != 0)
        return false;
    return !rest || ((n->base.bytes[whole] ^ ip->bytes[whole]) >> (8 - rest)) == 0;
}
