//! Records of the running poll that wait: whether they count is known when the other listing was read to its end.

use rusqlite::types::Type;
use rusqlite::{Connection, params};
use serde_json::json;

use super::Sql;
use crate::torq::User;

/// Keeps a record until the other listing was read to its end.
pub(super) fn put_off(db: &Connection, no: u32, user: &User) -> Sql<()> {
    let record = json!([
        user.email,
        user.role_id,
        user.status,
        user.sso,
        user.created,
        user.last_login
    ]);
    db.prepare_cached("INSERT OR REPLACE INTO poll_later (no, record) VALUES (?1, ?2)")?
        .execute(params![no, record.to_string()])?;
    Ok(())
}

/// The records that were put off, which are not any more.
pub(super) fn take_put_off(db: &Connection) -> Sql<Vec<(u32, User)>> {
    let mut later = Vec::new();
    let mut statement = db.prepare_cached("SELECT no, id, record FROM poll_later JOIN users USING (no)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let record = serde_json::from_str(row.get_ref(2)?.as_str()?);
        let (email, role_id, status, sso, created, last_login) =
            record.map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, Type::Text, error.into()))?;
        let user = User {
            id: row.get(1)?,
            email,
            role_id,
            status,
            sso,
            created,
            last_login,
            unreadable: Vec::new(),
        };
        later.push((row.get(0)?, user));
    }
    db.execute("DELETE FROM poll_later", [])?;
    Ok(later)
}
