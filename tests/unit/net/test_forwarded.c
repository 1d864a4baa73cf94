/* PROXY headers, and what trusted proxies say of the client; in a real server: test_proxies.py. */
#include "net/http/forwarded.h"
#include "net/http/proxy_protocol.h"

#include "tests/unit/check_main.h"

#include <stdio.h>
#include <string.h>

/* --- PROXY ------------------------------------------------------------------------------------- */

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(text) text, sizeof(text) - 1

static const struct {
    const char *data;
    size_t n;
    int r;
    const char *client; /* NULL: not known */
} headers[] = {
    {BYTES(""), RS_PROXY_MORE, NULL},
    {BYTES("P"), RS_PROXY_MORE, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r"), RS_PROXY_MORE, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\r\n"), 0, "1.2.3.4:9"},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 0 65535\r\nGET"), 0, "1.2.3.4:0"},
    {BYTES("PROXY TCP6 ::1 ::2 9 10\r\n"), 0, "[::1]:9"},
    {BYTES("PROXY UNKNOWN\r\n"), 0, NULL},
    {BYTES("PROXY UNKNOWN what ever\r\n"), 0, NULL},
    {BYTES("GET / HTTP/1.1\r\n"), -1, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 9\r\n"), -1, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 9 10 \r\n"), -1, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 9 65536\r\n"), -1, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 +9 1\r\n"), -1, NULL},
    {BYTES("PROXY TCP4 ::1 ::2 9 10\r\n"), -1, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 9 10\n"), -1, NULL},
    {BYTES(SIGNATURE "\x21"), RS_PROXY_MORE, NULL},
    {BYTES(SIGNATURE "\x21\x11\0\x0c\1\2\3\4\5\6\7\x08\0\x09\0\x0a"), 0, "1.2.3.4:9"},
    {BYTES(SIGNATURE "\x21\x11\0\x0d\1\2\3\4\5\6\7\x08\0\x09\0\x0a"), RS_PROXY_MORE, NULL},
    {BYTES(SIGNATURE "\x20\x11\0\0"), 0, NULL},
    {BYTES(SIGNATURE "\x21\0\0\0"), 0, NULL},
    {BYTES(SIGNATURE "\x21\x31\0\1x"), 0, NULL},
    {BYTES(SIGNATURE "\x21\x11\0\x0b"), -1, NULL},
    {BYTES(SIGNATURE "\x11\x11\0\x0c"), -1, NULL},
    {BYTES(SIGNATURE "\x22\x11\0\x0c"), -1, NULL},
    {BYTES(SIGNATURE "\x21\x11\xff\xff"), -1, NULL},
};

START_TEST(proxy_headers)
{
    struct rs_proxy_header h = {0};
    struct rs_error err = {0};
    size_t used = 0;
    char text[80];

    ck_assert_int_eq(rs_proxy_header_parse(headers[_i].data, headers[_i].n, &used, &h, &err),
                     headers[_i].r);
    ck_assert_int_eq(headers[_i].r < 0, err.msg[0] != '\0');
    ck_assert_int_eq(h.known, headers[_i].client != NULL);
    if (headers[_i].client) {
        rs_address_print(&h.client, text, sizeof(text));
        ck_assert_str_eq(text, headers[_i].client);
    }
    ck_assert_int_eq(headers[_i].r == 0, used > 0);
}
END_TEST

/* --- headers ----------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    const char *client; /* NULL: none */
} chains[] = {
    {"1.2.3.4", "1.2.3.4"},
    {"9.9.9.9, 1.2.3.4", "1.2.3.4"},
    {"9.9.9.9, 1.2.3.4, 10.0.0.1", "1.2.3.4"},
    {"10.0.0.2,10.0.0.1", "10.0.0.2"}, /* all of them are proxies: the first */
    {"1.2.3.4:55, 10.0.0.1:66", "1.2.3.4"},
    {"[2001:db8::1]:55", "2001:db8::1"},
    {"::ffff:10.0.0.1", "10.0.0.1"},
    {"1.2.3.4, garbage", NULL},
    {"1.2.3.4, garbage, 10.0.0.1", "10.0.0.1"},
    {" , ,1.2.3.4 , ", "1.2.3.4"},
    {"", NULL},
    {"1.2.3", NULL},
};

START_TEST(forwarded_for)
{
    json_t *list = json_pack("[s]", "10.0.0.0/8");
    struct rs_trusted t;
    char text[RS_IP_TEXT];
    struct rs_ip ip;
    bool found;

    rs_trusted_init(&t, list);
    found = rs_forwarded_for(&t, chains[_i].text, strlen(chains[_i].text), &ip);
    ck_assert_int_eq(found, chains[_i].client != NULL);
    if (found) {
        rs_ip_print(&ip, text);
        ck_assert_str_eq(text, chains[_i].client);
    }
    rs_trusted_fini(&t);
    json_decref(list);
}
END_TEST

static const struct {
    const char *text, *client, *proto;
} elements[] = {
    {"for=1.2.3.4", "1.2.3.4", NULL},
    {"For=\"1.2.3.4:80\";Proto=HTTPS", "1.2.3.4", "https"},
    {"proto=http;for=\"[::1]:80\"; by=x", "::1", "http"},
    {"for=9.9.9.9;proto=https, for=1.2.3.4;proto=http, for=10.0.0.1", "1.2.3.4", "http"},
    {"for=1.2.3.4, for=10.0.0.1;proto=https", "1.2.3.4", "https"},
    {"for=\"a,b\";proto=https, for=10.0.0.1", "10.0.0.1", "https"},
    {"for=unknown;proto=https", NULL, "https"},
    {"proto=https", NULL, "https"},
    {"for=", NULL, NULL},
    {"", NULL, NULL},
    {";;,;", NULL, NULL},
};

START_TEST(forwarded)
{
    json_t *list = json_pack("[s]", "10.0.0.0/8");
    const char *proto = NULL;
    struct rs_trusted t;
    char text[RS_IP_TEXT];
    struct rs_ip ip;
    bool found;

    rs_trusted_init(&t, list);
    found = rs_forwarded(&t, elements[_i].text, strlen(elements[_i].text), &ip, &proto);
    ck_assert_int_eq(found, elements[_i].client != NULL);
    if (found) {
        rs_ip_print(&ip, text);
        ck_assert_str_eq(text, elements[_i].client);
    }
    ck_assert_pstr_eq(proto, elements[_i].proto);
    rs_trusted_fini(&t);
    json_decref(list);
}
END_TEST

START_TEST(who_is_trusted)
{
    json_t *none = json_array();
    struct rs_trusted t;
    struct rs_ip ip;

    ck_assert_int_eq(rs_ip_parse(&ip, "127.0.0.1", 9), 0);
    rs_trusted_init(&t, NULL);
    ck_assert(rs_trusted_has(&t, &ip));
    rs_trusted_fini(&t);
    rs_trusted_init(&t, none);
    ck_assert(!rs_trusted_has(&t, &ip));
    rs_trusted_fini(&t);
    json_decref(none);
}
END_TEST

#define COUNT(table) (int)(sizeof(table) / sizeof(*(table)))

RS_CHECK_MAIN("forwarded", tcase_add_loop_test(tc, proxy_headers, 0, COUNT(headers));
              tcase_add_loop_test(tc, forwarded_for, 0, COUNT(chains));
              tcase_add_loop_test(tc, forwarded, 0, COUNT(elements));
              tcase_add_test(tc, who_is_trusted);)
