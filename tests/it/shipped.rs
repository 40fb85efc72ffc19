//! The files that are shipped beside the program: the systemd unit, Compose, Kubernetes, the image, the workflows. What can be
//! said of them without the real thing; `.ci/systemd` and `.ci/container` try that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use torq_connector::config;
use yaml_rust2::{Yaml, YamlLoader};

const STATE: &str = "/var/lib/torq-connector";
const CONFIG: &str = "/etc/torq-connector";
const USER: i64 = 65532;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The one document of a file.
fn yaml(path: &str) -> Yaml {
    let documents = YamlLoader::load_from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let [document] = documents.as_slice() else {
        panic!("{path} has {} documents", documents.len());
    };
    document.clone()
}

fn strings(list: &Yaml) -> Vec<&str> {
    let list = list.as_vec().unwrap_or_else(|| panic!("not a list: {list:?}"));
    list.iter().map(|one| one.as_str().unwrap()).collect()
}

/// The names of the files with secrets in a configuration.
fn secret_files(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.starts_with("client_secret_file"));
    lines.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
}

/// A configuration that somebody has filled in.
fn filled_in(text: &str) -> String {
    let lines = text.lines().map(|line| {
        if line.starts_with("client_id = \"<") {
            "client_id = \"id\""
        } else {
            line
        }
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// A configuration that was filled in, with its secrets mounted.
fn judged(text: &str) -> config::Config {
    let dir = tempfile::tempdir().unwrap();
    for name in secret_files(text) {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.path().join(name);
        std::fs::write(&path, "secret").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
    }
    let env = BTreeMap::from([("CREDENTIALS_DIRECTORY".to_owned(), dir.path().display().to_string())]);
    config::parse(&filled_in(text), Path::new(CONFIG), Some(0o644), &env)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// The values of a setting in the unit, comments left out.
fn unit(setting: &str) -> Vec<String> {
    let unit = text("config/torq-connector.service");
    let lines = unit.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| *name == setting)
        .map(|(_, value)| value.to_owned())
        .collect()
}

#[test]
fn the_unit_hands_over_the_secrets_that_the_example_names() {
    let handed: Vec<_> = unit("LoadCredential")
        .iter()
        .map(|value| value.split_once(':').unwrap().0.to_owned())
        .collect();
    assert_eq!(handed, secret_files(config::EXAMPLE));
    for value in unit("LoadCredential") {
        let (name, path) = value.split_once(':').unwrap();
        assert_eq!(path, format!("{CONFIG}/{name}"));
    }
    assert_eq!(unit("StateDirectory"), ["torq-connector"]);
    assert_eq!(unit("Type"), ["notify"]);
    assert_eq!(unit("RestartPreventExitStatus"), ["64 78"]);
    assert_eq!(unit("RestartForceExitStatus"), ["SIGHUP"]);
    assert_eq!(unit("DynamicUser"), ["yes"]);
}

#[tokio::test]
async fn what_the_unit_calls_is_a_command() {
    let calls: Vec<_> = ["ExecStart", "ExecReload"].iter().flat_map(|one| unit(one)).collect();
    assert_eq!(calls.len(), 3);
    for call in calls.iter().filter_map(|call| call.strip_prefix("torq-connector ")) {
        let mut command = crate::binary::bare();
        command.args(call.split(' ')).arg("--help");
        crate::binary::finish(command).await.exits(0);
    }
}

#[test]
fn the_unit_waits_longer_than_the_daemon_needs_to_stop() {
    let seconds: u64 = unit("TimeoutStopSec")[0].trim_end_matches('s').parse().unwrap();
    assert!(seconds > torq_connector::daemon::GRACE.as_secs());
}

#[test]
fn compose_has_what_the_example_needs_and_nothing_open() {
    let compose = yaml("compose.yaml");
    let service = &compose["services"]["torq-connector"];
    assert_eq!(service["user"].as_str(), Some(format!("{USER}:{USER}").as_str()));
    assert_eq!(service["read_only"].as_bool(), Some(true));
    assert_eq!(strings(&service["cap_drop"]), ["ALL"]);
    assert_eq!(strings(&service["security_opt"]), ["no-new-privileges:true"]);
    // Reached from this machine only.
    assert_eq!(strings(&service["ports"]), ["127.0.0.1:8686:8686"]);
    assert_eq!(
        strings(&service["volumes"]),
        [
            format!("./config.toml:{CONFIG}/config.toml:ro").as_str(),
            format!("state:{STATE}").as_str()
        ]
    );
    assert!(!compose["volumes"]["state"].is_badvalue());
    let secrets = secret_files(config::EXAMPLE);
    assert_eq!(strings(&service["secrets"]), secrets);
    for secret in &secrets {
        let file = compose["secrets"][secret.as_str()]["file"].as_str();
        assert_eq!(file, Some(format!("./secrets/{secret}").as_str()));
    }
    let grace = service["stop_grace_period"].as_str().unwrap();
    assert!(grace.trim_end_matches('s').parse::<u64>().unwrap() > torq_connector::daemon::GRACE.as_secs());

    // The environment is what the connector understands, and says where the published port leads.
    let environment = service["environment"].as_hash().unwrap();
    let mut env: BTreeMap<_, _> = environment
        .iter()
        .map(|(name, value)| (name.as_str().unwrap().to_owned(), value.as_str().unwrap().to_owned()))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    env.insert(
        "TORQ_CONNECTOR__CONNECTORS__MAIN__TORQ__CLIENT_SECRET".to_owned(),
        "one".to_owned(),
    );
    env.insert(
        "TORQ_CONNECTOR__CONNECTORS__MAIN__JUMPCLOUD__CLIENT_SECRET".to_owned(),
        "two".to_owned(),
    );
    // Instead of the files, which are in /run/secrets.
    let example = filled_in(config::EXAMPLE);
    let parsed = config::parse(&example, dir.path(), Some(0o644), &env).unwrap();
    assert_eq!(parsed.http.listen, Some("0.0.0.0:8686".parse().unwrap()));
}

#[test]
fn kubernetes_runs_one_at_a_time_as_nobody_with_its_configuration_secrets_and_state() {
    let deployment = yaml("deploy/kubernetes/deployment.yaml");
    assert_eq!(deployment["kind"].as_str(), Some("Deployment"));
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"].as_i64(), Some(1));
    assert_eq!(spec["strategy"]["type"].as_str(), Some("Recreate"));
    let pod = &spec["template"]["spec"];
    assert_eq!(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]);
    assert_eq!(pod["automountServiceAccountToken"].as_bool(), Some(false));
    let security = &pod["securityContext"];
    assert_eq!(security["runAsNonRoot"].as_bool(), Some(true));
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(security[key].as_i64(), Some(USER), "{key}");
    }
    assert_eq!(security["seccompProfile"]["type"].as_str(), Some("RuntimeDefault"));
    let grace = pod["terminationGracePeriodSeconds"].as_i64().unwrap();
    assert!(grace as u64 > torq_connector::daemon::GRACE.as_secs());

    let container = &pod["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"].as_bool(), Some(false));
    assert_eq!(security["readOnlyRootFilesystem"].as_bool(), Some(true));
    assert_eq!(strings(&security["capabilities"]["drop"]), ["ALL"]);
    assert_eq!(container["livenessProbe"]["httpGet"]["path"].as_str(), Some("/healthz"));
    assert_eq!(container["readinessProbe"]["httpGet"]["path"].as_str(), Some("/readyz"));
    assert!(container["resources"]["limits"]["memory"].as_str().is_some());

    // Each mount is of a volume that is there.
    let sources: BTreeMap<_, _> = pod["volumes"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|volume| (volume["name"].as_str().unwrap(), volume))
        .collect();
    let mounts: BTreeMap<_, _> = container["volumeMounts"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|mount| {
            (
                mount["mountPath"].as_str().unwrap(),
                sources[mount["name"].as_str().unwrap()],
            )
        })
        .collect();
    let kustomization = yaml("deploy/kubernetes/kustomization.yaml");
    let generated = |kind: &str| kustomization[kind][0].clone();
    assert_eq!(
        mounts[CONFIG]["configMap"]["name"],
        generated("configMapGenerator")["name"]
    );
    assert_eq!(
        mounts["/run/secrets"]["secret"]["secretName"],
        generated("secretGenerator")["name"]
    );
    // Octal, as Kubernetes reads it; a mode that others could read by would be refused.
    assert!(text("deploy/kubernetes/deployment.yaml").contains("defaultMode: 0440\n"));
    let claim = yaml("deploy/kubernetes/volume.yaml");
    assert_eq!(
        mounts[STATE]["persistentVolumeClaim"]["claimName"],
        claim["metadata"]["name"]
    );
    assert_eq!(strings(&claim["spec"]["accessModes"]), ["ReadWriteOnce"]);

    // Kustomize finds every file, and the secrets are those of the configuration.
    for resource in strings(&kustomization["resources"]) {
        assert!(root().join("deploy/kubernetes").join(resource).exists(), "{resource}");
    }
    assert_eq!(strings(&generated("configMapGenerator")["files"]), ["config.toml"]);
    let settings = text("deploy/kubernetes/config.toml");
    assert_eq!(strings(&generated("secretGenerator")["files"]), secret_files(&settings));
    let port = container["ports"][0]["containerPort"].as_i64().unwrap();
    let listen = judged(&settings).http.listen.unwrap();
    assert_eq!((i64::from(listen.port()), listen.ip().is_unspecified()), (port, true));

    let service = yaml("deploy/kubernetes/service.yaml");
    assert_eq!(service["spec"]["selector"], spec["selector"]["matchLabels"]);
    assert_eq!(service["spec"]["ports"][0]["port"].as_i64(), Some(port));
    assert_eq!(service["spec"]["publishNotReadyAddresses"].as_bool(), Some(true));
}

#[test]
fn the_image_and_the_manifests_agree() {
    let dockerfile = text("Dockerfile");
    let says = |line: &str| assert!(dockerfile.contains(line), "{line}");
    says(&format!("USER {USER}:{USER}\n"));
    says(&format!("VOLUME {STATE}\n"));
    says(&format!("TORQ_CONNECTOR_CONFIG={CONFIG}/config.toml"));
    says("CREDENTIALS_DIRECTORY=/run/secrets");
    says("FROM scratch\n");
    says("HEALTHCHECK ");
    says(&format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION")));
    // No shell form: there is no shell to understand it, and a program started by one would not be process 1.
    for line in dockerfile.lines() {
        if line.starts_with("ENTRYPOINT") || line.starts_with("CMD") {
            assert!(line.contains("[\""), "{line}");
        }
    }
    let tag = format!("torq-connector:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        yaml("compose.yaml")["services"]["torq-connector"]["image"].as_str(),
        Some(tag.as_str())
    );
    let kustomization = yaml("deploy/kubernetes/kustomization.yaml");
    assert_eq!(
        kustomization["images"][0]["newTag"].as_str(),
        Some(env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn workflows_may_do_little_and_run_only_what_is_pinned() {
    let mut found = 0;
    for entry in std::fs::read_dir(root().join(".github/workflows")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let workflow = yaml(&format!(".github/workflows/{name}"));
        found += 1;
        // What a job may do besides reading is said at the job.
        let permissions = workflow["permissions"]
            .as_hash()
            .unwrap_or_else(|| panic!("{name} has no permissions"));
        for (scope, access) in permissions {
            assert_eq!(
                (scope.as_str(), access.as_str()),
                (Some("contents"), Some("read")),
                "{name}"
            );
        }
        for (job, spec) in workflow["jobs"].as_hash().unwrap() {
            assert!(
                spec["timeout-minutes"].as_i64().is_some(),
                "{name}: {job:?} may run for ever"
            );
            for step in spec["steps"].as_vec().unwrap() {
                let Some(uses) = step["uses"].as_str() else { continue };
                let (action, version) = uses.split_once('@').unwrap();
                let pinned = version.len() == 40 && version.bytes().all(|byte| byte.is_ascii_hexdigit());
                assert!(pinned, "{name}: {uses} is not pinned by a hash");
                if action == "actions/checkout" {
                    assert_eq!(step["with"]["persist-credentials"].as_bool(), Some(false), "{name}");
                }
            }
        }
    }
    assert!(found >= 3, "ci, audit, release");
}

#[test]
fn packages_have_the_files_that_they_name() {
    let manifest = text("Cargo.toml");
    let section = |name: &str| {
        let (_, rest) = manifest.split_once(&format!("[package.metadata.{name}]\n")).unwrap();
        rest.split("\n[").next().unwrap()
    };
    let assets = |section: &str, begins: &str| -> Vec<String> {
        let lines = section.lines().filter_map(|line| line.trim().strip_prefix(begins));
        lines
            .map(|line| line.split('"').find(|part| !part.is_empty()).unwrap().to_owned())
            .collect()
    };
    let (deb, rpm) = (section("deb"), section("generate-rpm"));
    let sources = [assets(deb, "[\""), assets(rpm, "{ source = ")].concat();
    let mut seen = 0;
    for source in &sources {
        // What is built, and folders of files.
        if !source.starts_with("target/") && !source.contains('*') {
            assert!(root().join(source).is_file(), "{source}");
            seen += 1;
        }
    }
    assert!(seen > 4, "{sources:?}");
    // Neither touches the operator's configuration.
    let about_etc = |section: &str| -> Vec<String> {
        let lines = section
            .lines()
            .filter(|line| line.contains("etc/torq-connector/") && line.contains("config/"));
        lines.map(str::to_owned).collect()
    };
    assert!(about_etc(deb).is_empty(), "the first installation copies it");
    let [only] = about_etc(rpm).try_into().unwrap();
    assert!(only.contains("config = \"noreplace\""), "{only}");
}
