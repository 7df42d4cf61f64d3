//! The modelmount CSI driver: the Container Storage Interface on top of the [`modelmount`] library.

pub mod csi;
