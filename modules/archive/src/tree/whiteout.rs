//! What the layer that is being added hides of earlier ones: image-spec, `layer.md`. Its own entries stay, in whatever
//! order they stand.

use super::{NodeId, Tree, What};

impl Tree {
    /// Does what the name of a whiteout says; gives whether it is one.
    pub(super) fn hide(&mut self, directory: NodeId, name: &[u8]) -> bool {
        let Some(hidden) = name.strip_prefix(b".wh.") else { return false };
        if hidden == b".wh..opq" {
            self.keeps(directory);
        } else if !hidden.starts_with(b".wh.") {
            self.hide_earlier(directory, hidden);
        }
        // Others of the kind are notes of the program that has made the layer.
        true
    }

    /// Takes away what earlier layers have of an entry.
    fn hide_earlier(&mut self, directory: NodeId, name: &[u8]) {
        let Some(id) = self.child(directory, name) else { return };
        if !self.keeps(id) {
            if let Some(What::Directory(entries)) = self.node_mut(directory).map(|node| &mut node.what) {
                entries.remove(name);
            }
        }
    }

    /// Takes away what earlier layers have of a directory; gives whether the present one has anything of it.
    fn keeps(&mut self, id: NodeId) -> bool {
        let layer = self.layer;
        let Some(node) = self.node_mut(id) else { return false };
        let is_ours = node.layer == layer;
        let was_pruned = std::mem::replace(&mut node.pruned, layer) == layer;
        let Some(entries) = node.entries() else { return is_ours };
        if was_pruned {
            return is_ours || !entries.is_empty();
        }
        let entries: Vec<_> = entries.iter().map(|(name, id)| (name.clone(), *id)).collect();
        // As deep as DEPTH_MAX.
        let gone: Vec<_> = entries.into_iter().filter(|(_, id)| !self.keeps(*id)).map(|(name, _)| name).collect();
        let Some(What::Directory(entries)) = self.node_mut(id).map(|node| &mut node.what) else { return is_ours };
        for name in gone {
            entries.remove(&name);
        }
        is_ours || !entries.is_empty()
    }
}
