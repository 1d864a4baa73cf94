/* Addresses and the networks that they are in. */
#include "core/base/network.h"

#include "tests/unit/check_main.h"

#include <string.h>

static const struct {
    const char *network, *ip;
    int in; /* -1: the network is refused */
} cases[] = {
    {"10.0.0.0/8", "10.255.0.1", 1},
    {"10.0.0.0/8", "11.0.0.1", 0},
    {"10.1.2.3/8", "10.9.9.9", 1}, /* bits behind the network's do not count */
    {"10.0.0.0/9", "10.127.0.1", 1},
    {"10.0.0.0/9", "10.128.0.1", 0},
    {"0.0.0.0/0", "1.2.3.4", 1},
    {"0.0.0.0/0", "::1", 0},
    {"::/0", "1.2.3.4", 1},
    {"::/0", "2001:db8::1", 1},
    {"1.2.3.4", "1.2.3.4", 1},
    {"1.2.3.4", "1.2.3.5", 0},
    {"1.2.3.4/32", "::ffff:1.2.3.4", 1},
    {"::1", "::1", 1},
    {"[::1]", "[::1]", 1},
    {"2001:db8::/33", "2001:db8:7fff::", 1},
    {"2001:db8::/33", "2001:db8:8000::", 0},
    {"2001:db8::/128", "2001:db8::", 1},
    {"1.2.3.4/33", "", -1},
    {"::1/129", "", -1},
    {"1.2.3.4/", "", -1},
    {"1.2.3.4/-1", "", -1},
    {"1.2.3.4/8 ", "", -1},
    {"1.2.3.4/0008", "", -1},
    {"1.2.3/8", "", -1},
    {"/8", "", -1},
    {"", "", -1},
    {"localhost", "", -1},
    {"1.2.3.4.5", "", -1},
    {"[::1", "", -1},
};

START_TEST(networks)
{
    struct rs_network n = {.bits = 7};
    struct rs_ip ip;
    int r = rs_network_parse(&n, cases[_i].network);

    ck_assert_int_eq(r, cases[_i].in < 0 ? -1 : 0);
    if (r < 0) {
        ck_assert_uint_eq(n.bits, 7); /* untouched */
        return;
    }
    ck_assert_int_eq(rs_ip_parse(&ip, cases[_i].ip, strlen(cases[_i].ip)), 0);
    ck_assert_int_eq(rs_network_has(&n, &ip), cases[_i].in);
}
END_TEST

START_TEST(texts)
{
    static const char *const same[] = {"1.2.3.4", "0.0.0.0", "2001:db8::1", "::", "::1"};
    char text[RS_IP_TEXT];
    struct rs_ip ip;

    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++) {
        ck_assert_int_eq(rs_ip_parse(&ip, same[i], strlen(same[i])), 0);
        rs_ip_print(&ip, text);
        ck_assert_str_eq(text, same[i]);
    }
    ck_assert_int_eq(rs_ip_parse(&ip, "::ffff:9.8.7.6", 14), 0);
    rs_ip_print(&ip, text);
    ck_assert_str_eq(text, "9.8.7.6");
    ck_assert_int_eq(rs_ip_parse(&ip, "1.2.3.45", 7), 0); /* no more than it was told */
    rs_ip_print(&ip, text);
    ck_assert_str_eq(text, "1.2.3.4");
}
END_TEST

RS_CHECK_MAIN("network", tcase_add_loop_test(tc, networks, 0, sizeof(cases) / sizeof(*cases));
              tcase_add_test(tc, texts);)
