/* Inside the PCI room: between pci.c (functions), pci_host.c (bridge, access paths) and pci_msix.c. */
#ifndef DEVICES_PCI_INT_H
#define DEVICES_PCI_INT_H

#include "devices/pci.h"

/* pci.c; the caller holds the host lock. size 1, 2 or 4, off + size <= PCI_CFG_SIZE */
u32 pci_func_cfg_read_locked(struct pci_func *f, unsigned off, unsigned size);
void pci_func_cfg_write_locked(struct pci_func *f, unsigned off, unsigned size, u32 v);

/* pci_host.c */
int pci_host_claim_slot(struct pci_host *h, struct pci_func *f,
			int slot); /* sets f->slot; -ENOSPC or -EBUSY */
void pci_host_release_slot(struct pci_host *h, struct pci_func *f);
int pci_host_place_bar(struct pci_host *h, struct pci_bar *b);
void pci_host_lock(struct pci_host *h);
void pci_host_unlock(struct pci_host *h);
void pci_host_intx(struct pci_host *h, unsigned slot, bool level);

/* pci_msix.c */
void pci_msix_control_written(struct pci_func *f);
void pci_msix_reset(struct pci_func *f);
void pci_msix_fini(struct pci_func *f);

#endif
