//! What happens in the world by itself, one small step at a time.

use jiff::Timestamp;

use super::people::{Person, nanos, roles};
use super::world::World;

/// One step; the line says what happened.
pub(super) fn tick(world: &mut World) -> Option<String> {
    match world.inventor.random().u8(..100) {
        0..30 => login(world, None),
        30..55 => Some(joined(&world.arrive(Timestamp::now()))),
        // Fewer leave than come, or the demo would end with nobody.
        55..70 => leave(world, None).map(|person| format!("{} left", person.name)),
        70..80 => change_role(world),
        80..88 => change_listing(world),
        88..94 => accept_invitation(world),
        _ => join_directory(world),
    }
}

fn joined(person: &Person) -> String {
    let how = if person.sso_provision {
        "through single sign-on"
    } else {
        "by invitation"
    };
    format!("{} joined {how}", person.name)
}

/// The id of somebody for whom the condition holds.
fn somebody(world: &mut World, fits: impl Fn(&Person) -> bool) -> Option<String> {
    let ids: Vec<&String> = world
        .people
        .values()
        .filter(|person| fits(person))
        .map(|person| &person.id)
        .collect();
    if ids.is_empty() {
        return None;
    }
    let index = world.inventor.random().usize(..ids.len());
    ids.get(index).map(|id| (*id).clone())
}

fn by_email(email: &str) -> impl Fn(&Person) -> bool {
    let email = email.to_lowercase();
    move |person| person.email.to_lowercase() == email
}

/// The person with this e-mail, or anybody, leaves.
pub(super) fn leave(world: &mut World, email: Option<&str>) -> Option<Person> {
    let id = match email {
        Some(email) => somebody(world, by_email(email)),
        None => somebody(world, |_| true),
    }?;
    world.people.remove(&id)
}

/// The person with this e-mail, or anybody who is verified, logs in.
pub(super) fn login(world: &mut World, email: Option<&str>) -> Option<String> {
    let id = match email {
        Some(email) => somebody(world, by_email(email)),
        None => somebody(world, |person| person.status == "VERIFIED"),
    }?;
    let person = world.people.get_mut(&id)?;
    person.last_login_time = Some(nanos(Timestamp::now()));
    person.status = "VERIFIED".to_owned();
    Some(format!("{} logged in", person.name))
}

fn change_role(world: &mut World) -> Option<String> {
    let id = somebody(world, |_| true)?;
    let role_id = world.inventor.role_id();
    let person = world.people.get_mut(&id)?;
    if person.role_id == role_id {
        return None;
    }
    person.role_id = role_id.to_owned();
    let role = roles().iter().find(|role| role.id == role_id)?;
    Some(format!("{} has the role {} now", person.name, role.name))
}

fn change_listing(world: &mut World) -> Option<String> {
    let id = somebody(world, |_| true)?;
    let person = world.people.get_mut(&id)?;
    person.sso_provision = !person.sso_provision;
    Some(if person.sso_provision {
        format!("{} is provisioned by single sign-on now", person.name)
    } else {
        format!("{} is a local user now", person.name)
    })
}

fn accept_invitation(world: &mut World) -> Option<String> {
    let id = somebody(world, |person| person.status == "INVITATION_SENT")?;
    let person = world.people.get_mut(&id)?;
    person.status = "VERIFIED".to_owned();
    Some(format!("{} accepted the invitation", person.name))
}

fn join_directory(world: &mut World) -> Option<String> {
    let known: std::collections::HashSet<String> =
        world.directory.users().iter().map(|user| user.email.clone()).collect();
    let id = somebody(world, |person| !known.contains(&person.email.to_lowercase()))?;
    let person = world.people.get(&id)?.clone();
    world.add_to_directory(&person.email, &person.name);
    Some(format!("{} is in the JumpCloud directory now", person.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::Options;

    #[test]
    fn life_goes_the_same_way_for_the_same_seed() {
        let story = |seed| {
            let mut world = World::new(&Options {
                seed,
                ..Options::default()
            });
            (0..200).filter_map(|_| tick(&mut world)).collect::<Vec<_>>()
        };
        let lines = story(1);
        assert_eq!(lines, story(1));
        assert_ne!(lines, story(2));
        for word in ["joined", "left", "logged in", "role", "directory"] {
            assert!(lines.iter().any(|line| line.contains(word)), "{word}");
        }
    }

    #[test]
    fn an_empty_world_lives_on() {
        let mut world = World::new(&Options {
            people: 0,
            ..Options::default()
        });
        for _ in 0..300 {
            tick(&mut world);
        }
        assert!(!world.people.is_empty());
    }
}
