//! Files and folders: the configuration file itself, the state's folder, the certificate authorities.

use super::*;

#[test]
fn a_file_is_read_and_its_folder_is_what_paths_are_relative_to() {
    let world = World::new();
    let path = world.write("config.toml", format!("state_dir = \"state\"\n{SMALL}"), 0o644);
    let config = load(&path, &world.env).unwrap();
    assert_eq!(config.state_dir, world.path("state"));
    assert_eq!(config.connectors[0].torq.client_secret.expose(), "t0rq-s3cret");
}

#[test]
fn a_literal_secret_needs_a_closed_file() {
    let world = World::new();
    let text = without(".torq", "client_secret_file").replace("torq-id\"", "torq-id\"\nclient_secret = \"hush\"");
    let path = world.write("config.toml", &text, 0o644);
    let shown = load(&path, &world.env).unwrap_err().to_string();
    assert!(shown.contains(&format!("chmod 600 {}", path.display())), "{shown}");
    world.write("config.toml", &text, 0o600);
    load(&path, &world.env).unwrap();
}

#[test]
fn a_file_that_is_not_there_is_told_with_what_to_do() {
    let world = World::new();
    for (path, advice) in [
        (world.path("nothing.toml"), "there is no"),
        (world.path("credentials"), "cannot be read"),
    ] {
        let problems = load(&path, &world.env).unwrap_err().0;
        let [problem] = problems.as_slice() else {
            panic!("{problems:?}")
        };
        assert_eq!(problem.key, "");
        for part in [advice, "--config", "TORQ_CONNECTOR_CONFIG", &path.display().to_string()] {
            assert!(problem.message.contains(part), "{problem}");
        }
    }
}

#[test]
fn a_file_that_is_not_text_is_told() {
    let world = World::new();
    let path = world.write("config.toml", b"[log]\n# caf\xe9\n", 0o600);
    let shown = load(&path, &world.env).unwrap_err().to_string();
    assert!(shown.contains("not UTF-8 text (line 2)"), "{shown}");
}

#[test]
fn the_state_lives_where_the_file_says_or_systemd_or_in_the_usual_place() {
    let mut world = World::new();
    let explicit = format!("state_dir = \"here\"\n{SMALL}");
    assert_eq!(world.good(SMALL).state_dir, Path::new("/var/lib/torq-connector"));
    world.set("STATE_DIRECTORY", "");
    assert_eq!(world.good(SMALL).state_dir, Path::new("/var/lib/torq-connector"));
    world.set("STATE_DIRECTORY", "/var/lib/one:/var/lib/two");
    assert_eq!(world.good(SMALL).state_dir, Path::new("/var/lib/one"));
    assert_eq!(world.good(&explicit).state_dir, world.path("here"));
    world.set("TORQ_CONNECTOR__STATE_DIR", "/there");
    assert_eq!(world.good(&explicit).state_dir, Path::new("/there"));
}

#[test]
fn certificate_authorities_are_a_pem_file() {
    let world = World::new();
    let text = with_general("network", "ca_file = \"ca.pem\"");
    let path = world.path("ca.pem");
    let told = |advice: &str| {
        let problem = world.only(&text);
        assert_eq!(problem.key, "network.ca_file");
        assert!(problem.message.contains(advice), "{problem}");
        assert!(problem.message.contains(&path.display().to_string()), "{problem}");
    };
    told("cannot be read");
    world.write("ca.pem", "not one", 0o644);
    told("PEM");
    world.write("ca.pem", "", 0o644);
    told("no certificate in it");
    let (first, second) = (authority(), authority());
    // What is no certificate is passed by, whatever else stands in the file.
    world.write(
        "ca.pem",
        format!("# mine\n{first}-----BEGIN X-----\nAAAA\n-----END X-----\n{second}"),
        0o644,
    );
    let authorities = world.good(&text).network.ca_file.unwrap();
    assert_eq!((authorities.path, authorities.certificates.len()), (path.clone(), 2));
    // Each of them is looked at.
    world.write(
        "ca.pem",
        format!("{first}-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n"),
        0o644,
    );
    told("certificate 2");
    world.write("ca.pem", format!("{first}{}", second.replace("MII", "AAA")), 0o644);
    told("certificate 2");
    world.write("ca.pem", format!("{first}-----BEGIN CERTIFICATE-----\n"), 0o644);
    told("certificate 2");
}

#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let world = World::new();
    let pipe = world.path("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    for (file, words) in [
        ("pipe", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("credentials", "not a regular file"),
    ] {
        let problem = world.only(&with_general("network", &format!("ca_file = \"{file}\"")));
        assert!(problem.message.contains(words), "{problem}");
    }
    std::fs::set_permissions(&pipe, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let problem = world.only(&with(".torq", "client_secret_file = \"pipe\""));
    assert!(problem.message.contains("not a regular file"), "{problem}");
}

pub(super) fn authority() -> String {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn of_a_file_the_good_connectors_can_be_used_and_what_is_wrong_with_the_others_is_told() {
    let world = World::new();
    let section = |name: &str, more: &str| SMALL.replace("connectors.main", &format!("connectors.{name}")) + more;
    let usable = |text: &str| load_usable(&world.write("config.toml", text, 0o600), &world.env);
    let names = |usable: &Usable| -> Vec<String> {
        usable
            .config
            .connectors
            .iter()
            .map(|one| one.name.to_string())
            .collect()
    };

    let all = usable(&(section("a", "") + &section("b", ""))).unwrap();
    assert_eq!(
        (names(&all).len(), all.problems.is_none(), all.wrong().len()),
        (2, true, 0)
    );

    for bad in [
        // A value; an unknown key, which the walker never sees; no section at all; a name that none can be.
        section("\"x.y\"", "").replace("\"us\"", "\"mars\""),
        section("\"x.y\"", "sekret = 1\n"),
        "[connectors]\n\"x.y\" = 5\n".to_owned(),
        section("\"q\\\"./\"", ""),
    ] {
        let usable = usable(&(bad.clone() + &section("a", ""))).unwrap_or_else(|problems| panic!("{bad}: {problems}"));
        assert_eq!(names(&usable), ["a"], "{bad}");
        assert!(usable.problems.is_some() && !usable.is_wrong("a"), "{bad}");
        assert_eq!(usable.wrong().len(), 1, "{bad}");
        assert!(
            usable.is_wrong("x.y") || usable.is_wrong("q\"./"),
            "{bad}: {:?}",
            usable.wrong()
        );
    }

    // Nothing is left, or it is about all of them.
    for none in [
        section("a", "sekret = 1\n"),
        section("a", "[log]\nlevel = 5\n"),
        "connectors = 5\n".to_owned(),
        "[".to_owned(),
    ] {
        assert!(usable(&none).is_err(), "{none}");
    }
}
