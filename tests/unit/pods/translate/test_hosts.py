from agent.pods.translate.hostname import PodHostname
from agent.pods.translate.hosts import hosts_file
from tests.unit.pods.pods import make_pod

ALIASES = [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}, {"ip": "::5", "hostnames": ["c"]}]


def test_a_pods_file_names_loopback_and_every_address_of_the_pod() -> None:
    text = hosts_file(make_pod(), PodHostname("web"), ("10.1.0.2", "fd01::2"), "ignored")
    assert text == (
        "# Kubernetes-managed hosts file.\n"
        "127.0.0.1\tlocalhost\n"
        "::1\tlocalhost ip6-localhost ip6-loopback\n"
        "fe00::0\tip6-localnet\n"
        "fe00::0\tip6-mcastprefix\n"
        "fe00::1\tip6-allnodes\n"
        "fe00::2\tip6-allrouters\n"
        "10.1.0.2\tweb\n"
        "fd01::2\tweb\n"
    )


def test_a_domain_comes_before_the_short_name_and_aliases_have_their_own_section() -> None:
    name = PodHostname("web", "sub.shop.svc.cluster.local")
    text = hosts_file(make_pod(hostAliases=ALIASES), name, ("10.1.0.2",), "")
    assert text.endswith(
        "10.1.0.2\tweb.sub.shop.svc.cluster.local\tweb\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n::5\tc\n"
    )


def test_on_the_hosts_network_the_nodes_own_file_is_kept_and_aliases_added() -> None:
    pod = make_pod(hostNetwork=True, hostAliases=ALIASES[:1])
    assert hosts_file(pod, PodHostname("web"), ("10.0.0.1",), "127.0.0.1 localhost\n") == (
        "# Kubernetes-managed hosts file (host network).\n"
        "127.0.0.1 localhost\n"
        "\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
    )
