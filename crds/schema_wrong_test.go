package crds_test

// wrong is an object that is refused, and a part of what the user is told.
type wrong struct{ name, spec, want string }

func wrongObjects() map[string][]wrong {
	return map[string][]wrong{
		"SpiderIPPool":       append(wrongAddresses(), wrongPools()...),
		"SpiderReservedIP":   wrongReservations(),
		"SpiderCoordinator":  wrongCoordinators(),
		"SpiderMultusConfig": wrongNetworks(),
		"IPBlock":            wrongBlocks(),
	}
}

func wrongAddresses() []wrong {
	return []wrong{
		{"a", `{subnet: 10.6.0.0/16, ips: [10.6.0.1, nonsense]}`, `spec.ips[1]: Invalid value: "nonsense": want an address like`},
		{"a", `{subnet: 10.6.0.0/16, ips: [10.6.0.1 - 10.6.0.2]}`, `without blanks`},
		{"a", `{subnet: 10.6.0.0/16, ips: [10.6.0.0/24]}`, `without blanks and prefix length`},
		{"a", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.2-10.6.0.3]}`, `spec.ips[0]: Invalid value`},
		{"a", `{subnet: 10.6.0.0/16, ips: [10.6.1.2-10.6.1.1]}`, `spec.ips[0]: Invalid value: "10.6.1.2-10.6.1.1": the range ends before it starts`},
		{"a", `{subnet: 10.6.0.0/16, excludeIPs: [10.6.10.1-10.6.9.255]}`, `spec.excludeIPs[0]: Invalid value: "10.6.10.1-10.6.9.255": the range ends before it starts`},
		{"a", `{subnet: 10.6.0.0/16, ips: ["10.6.0.1-fd00::1"]}`, `the two ends of the range must both be IPv4`},
		{"a", `{subnet: 10.6.0.0/16, ips: [10.6.0.1, 10.6.255.255-10.7.0.0]}`, `spec.ips: Invalid value: 10.6.255.255-10.7.0.0 is not in subnet 10.6.0.0/16: every address of ips`},
		{"a", `{subnet: 10.6.0.0/16, ips: ["fd00::1"]}`, `spec.ips: Invalid value: fd00::1 is not in subnet`},
		{"a", `{subnet: 10.6.0.0/16, excludeIPs: [10.7.0.1]}`, `spec.excludeIPs: Invalid value: 10.7.0.1 is not in subnet`},
		{"a", `{subnet: 10.6.0.0/16, gateway: 10.7.0.1}`, `spec.gateway: Invalid value: gateway must be an address in subnet`},
		{"a", `{subnet: 10.6.0.0/16, gateway: router}`, `spec.gateway: Invalid value: gateway must be an address in subnet`},
		{"a", `{subnet: 10.6.0.0/16, ips: [10.6.0.1-10.6.0.9], gateway: 10.6.0.5}`, `spec.gateway: Invalid value: gateway is among ips`},
	}
}

func wrongPools() []wrong {
	return []wrong{
		{"a", `{}`, `spec.subnet: Required`},
		{"a", `{subnet: foo}`, `spec.subnet: Invalid value: "foo": want a network like 10.6.0.0/16`},
		{"a", `{subnet: 10.6.0.1/16}`, `spec.subnet: Invalid value: "10.6.0.1/16": write the subnet with its first address`},
		{"a", `{subnet: "FD00::/64"}`, `write the subnet with its first address and in the usual form`},
		{"a", `{subnet: 10.6.0.0/16, ipVersion: 6}`, `spec.ipVersion: Invalid value: ipVersion does not match subnet: leave ipVersion out`},
		{"a", `{subnet: 10.6.0.0/16, ipVersion: 5}`, `spec.ipVersion: Unsupported value`},
		{"a", `{subnet: 10.6.0.0/16, routes: [{dst: 0.0.0.0/0, gw: 10.6.0.1}]}`, `spec.routes: Invalid value: the default route is not written as a route: set gateway`},
		{"a", `{subnet: 10.6.0.0/16, routes: [{dst: 10.7.0.0/16, gw: 10.7.0.1}]}`, `the gw of each route must be an address in subnet`},
		{"a", `{subnet: 10.6.0.0/16, routes: [{dst: "fd00::/64", gw: 10.6.0.1}]}`, `the dst of each route must be a network of the IP version of subnet`},
		{"a", `{subnet: 10.6.0.0/16, routes: [{dst: 10.8.0.0/16, gw: 10.6.0.1}, {dst: 10.8.0.0/16, gw: 10.6.0.2}]}`, `two routes have the same dst`},
		{"a", `{subnet: 10.6.0.0/16, podAffinity: {}}`, `spec.podAffinity: Invalid value: podAffinity selects nothing`},
		{"a", `{subnet: 10.6.0.0/16, podAffinity: {matchLabels: {}}}`, `podAffinity selects nothing`},
		{"a", `{subnet: 10.6.0.0/16, nodeAffinity: {matchExpressions: [{key: a, operator: Near}]}}`, `spec.nodeAffinity.matchExpressions: Invalid value: the operator`},
		{"a", `{subnet: 10.6.0.0/16, namespaceAffinity: {matchExpressions: [{key: a, operator: In}]}}`, `must be In or NotIn with values`},
		{"a", `{subnet: 10.6.0.0/16, multusName: [a/b/c]}`, `spec.multusName[0]: Invalid value: "a/b/c": want the name of a network`},
	}
}

func wrongReservations() []wrong {
	return []wrong{
		{"a", `{}`, `spec.ips: Invalid value: ips is empty`},
		{"a", `{ips: []}`, `ips is empty`},
		{"a", `{ips: [10.6.0.1, "fd00::1"]}`, `ips has IPv4 and IPv6`},
		{"a", `{ips: [10.6.0.1], ipVersion: 6}`, `spec.ipVersion: Invalid value: ipVersion does not match ips`},
		{"a", `{ips: [10.6.0.9-10.6.0.1]}`, `spec.ips[0]: Invalid value: "10.6.0.9-10.6.0.1": the range ends before it starts`},
	}
}

func wrongCoordinators() []wrong {
	return []wrong{
		{"a", `{mode: auto}`, `spec.podCIDRType: Invalid value: podCIDRType is missing`},
		{"a", `{podCIDRType: auto, mode: sideways}`, `spec.mode: Unsupported value`},
		{"a", `{podCIDRType: auto, hijackCIDR: [x]}`, `spec.hijackCIDR[0]: Invalid value: "x": want an address or a network`},
		{"a", `{podCIDRType: auto, podMACPrefix: "0b:1b"}`, `spec.podMACPrefix: Invalid value: podMACPrefix must be two bytes`},
		{"a", `{podCIDRType: auto, vethLinkAddress: 10.0.0.1/24}`, `spec.vethLinkAddress: Invalid value: vethLinkAddress must be an IP address`},
		{"a", `{podCIDRType: auto, podRPFilter: 3}`, `spec.podRPFilter: Invalid value: 3`},
		{"a", `{podCIDRType: auto, podMACPrefix: "0a:1b:2c"}`, `spec.podMACPrefix: Too long`},
		{"a", `{podCIDRType: auto, podDefaultRouteNIC: sixteencharacters}`, `spec.podDefaultRouteNIC: Too long`},
		{"a", `{podCIDRType: auto, podDefaultRouteNIC: "a b"}`, `spec.podDefaultRouteNIC: Invalid value: podDefaultRouteNIC must be the name of an interface in the pod, like eth0`},
		{"a", `{podCIDRType: auto, podDefaultRouteNIC: ../eth0}`, `must be the name of an interface in the pod`},
		{"a", `{podCIDRType: auto, hostRuleTable: 254}`, `spec.hostRuleTable: Invalid value: routing tables 253 to 255 are the system's: use one`},
		{"a", `{podCIDRType: auto, hostRuleTable: 0}`, `spec.hostRuleTable: Invalid value: 0`},
		{"a", `{podCIDRType: auto, hostRuleTable: 4294967296}`, `spec.hostRuleTable: Invalid value: 4294967296`},
		{"a", `{podCIDRType: auto, txQueueLen: -1}`, `spec.txQueueLen: Invalid value: -1`},
		{"a", `{podCIDRType: auto, vethMTU: 67}`, `spec.vethMTU: Invalid value: 67`},
		{"a", `{podCIDRType: auto, vethMTU: 65536}`, `spec.vethMTU: Invalid value: 65536`},
		{"a", `{podCIDRType: auto, hijackCIDR: ["::ffff:10.0.0.1"]}`, `spec.hijackCIDR[0]: Invalid value: "::ffff:10.0.0.1": want an address or a network`},
		{"a", `{podCIDRType: auto, hijackCIDR: ["10.0.0.0/33"]}`, `spec.hijackCIDR[0]: Invalid value`},
		{"a", `{podCIDRType: auto, policyRoutes: [{dst: 10.0.0.0/8}]}`, `spec.policyRoutes[0].gw: Required value`},
		{"a", `{podCIDRType: auto, policyRoutes: [{dst: a, gw: 10.0.0.2}]}`, `spec.policyRoutes[0].dst: Invalid value: dst must be`},
		{"a", `{podCIDRType: auto, policyRoutes: [{dst: 10.0.0.0/8, gw: "fd00::1"}]}`, `dst and gw must both be IPv4`},
	}
}

func wrongNetworks() []wrong {
	return []wrong{
		{"a", `{cniType: macvlan}`, `spec.macvlan: Invalid value: cniType is macvlan, but the block macvlan is missing`},
		{"a", `{macvlan: {master: [a]}}`, `spec.macvlan: Invalid value: the block macvlan is for cniType macvlan only`},
		{"a", `{cniType: macvlan, macvlan: {master: []}}`, `spec.macvlan.master: Invalid value: master is empty`},
		{"a", `{cniType: macvlan, macvlan: {master: [a, b]}}`, `spec.macvlan.bond: Invalid value: several masters need a bond`},
		{"a", `{cniType: ipoib, ipoib: {master: a, ippools: {matchMasterSubnet: true}}}`, `spec.ipoib.ippools.matchMasterSubnet: Invalid value: only sriov`},
		{"a", `{cniType: ovs, ovs: {bridge: a, ippools: {matchMasterSubnet: true}}}`, `spec.ovs.ippools.matchMasterSubnet: Invalid value: only sriov`},
		{"a", `{cniType: ipvlan, ipvlan: {master: [a], ippools: {matchMasterSubnet: true}}}`, `only sriov and ib-sriov can match the subnet of the master`},
		{"a", `{cniType: vlan, vlan: {master: [a], vlanMode: auto, vlanID: 3}}`, `spec.vlan.vlanID: Invalid value: vlanID is for vlanMode manual`},
		{"a", `{cniType: macvlan, macvlan: {master: [a], vlanID: 4095}}`, `spec.macvlan.vlanID: Invalid value: 4095`},
		{"a", `{cniType: sriov, sriov: {resourceName: x, minTxRateMbps: 3, maxTxRateMbps: 2}}`, `minTxRateMbps is above maxTxRateMbps`},
		{"a", `{cniType: ovs, ovs: {bridge: b, trunk: [{minID: 5, maxID: 3}]}}`, `minID is above maxID`},
		{"a", `{cniType: ovs, ovs: {bridge: b, trunk: [{}]}}`, `an element of trunk is empty`},
		{"a", `{cniType: ovs, ovs: {bridge: b, trunk: [{minID: 5}]}}`, `minID and maxID go together`},
		{"a", `{customCNI: nonsense}`, `spec.customCNI: Invalid value: customCNI must be a CNI configuration`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, customCNI: "{}"}`, `customCNI is for cniType custom only`},
		{"a", `{chainCNIJsonData: [x]}`, `spec.chainCNIJsonData[0]: Invalid value: "x": want the configuration`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {hijackCIDR: [x]}}`, `spec.coordinator.hijackCIDR[0]`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {mode: disable}}`, `spec.coordinator.mode: Unsupported value`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {podMACPrefix: "0b:1b"}}`, `spec.coordinator.podMACPrefix: Invalid value: podMACPrefix must be two bytes`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {hostRuleTable: 255}}`, `spec.coordinator.hostRuleTable: Invalid value`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {podDefaultRouteNIC: "a/b"}}`, `spec.coordinator.podDefaultRouteNIC: Invalid value`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {vethLinkAddress: fe80::1%a}}`, `spec.coordinator.vethLinkAddress`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {vethMTU: 1}}`, `spec.coordinator.vethMTU: Invalid value: 1`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {podRPFilter: 3}}`, `spec.coordinator.podRPFilter: Invalid value: 3`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {txQueueLen: 2147483648}}`, `spec.coordinator.txQueueLen: Invalid value: 2147483648`},
		{"a", `{cniType: macvlan, macvlan: {master: [a]}, coordinator: {policyRoutes: [{dst: "fd00::/8", gw: 10.0.0.1}]}}`, `spec.coordinator.policyRoutes[0].gw: Invalid value: dst and gw must both be IPv4`},
	}
}

func wrongBlocks() []wrong {
	return []wrong{
		{"10.6.168.96-27", `{cidr: 10.6.168.96/27}`, `want an aligned IPv4 /28 or IPv6 /124`},
		{"10.6.168.97-28", `{cidr: 10.6.168.97/28}`, `want an aligned IPv4 /28 or IPv6 /124`},
		{"10.6.168.96-28", `{cidr: 10.6.168.112/28}`, `the name must be the cidr`},
		{"fd00-0000-0000-0000-0000-0000-0000-0020-124", `{cidr: "fd00::10/124"}`, `the name must be the cidr`},
		{"fd00--10-124", `{cidr: "fd00::10/124"}`, `the name must be the cidr`},
		{"10.6.168.96-28", `{cidr: 10.6.168.96/28, leases: [{node: a, nodeUID: u, addresses: []}]}`, `spec.leases[0].addresses: Invalid value`},
		{"10.6.168.96-28", `{cidr: 10.6.168.96/28, leases: [{node: a, nodeUID: u, addresses: [10.6.168.97-10.6.168.99]}, {node: b, nodeUID: v, addresses: [10.6.168.96, 10.6.168.99-10.6.168.100]}]}`, `spec.leases: Invalid value: an address is in the leases of two nodes`},
		{"fd00-0000-0000-0000-0000-0000-0000-0000-124", `{cidr: "fd00::/124", leases: [{node: a, nodeUID: u, addresses: ["fd00::-fd00::a"]}, {node: b, nodeUID: v, addresses: ["fd00::"]}]}`, `an address is in the leases of two nodes`},
		{"10.6.168.96-28", `{cidr: 10.6.168.96/28, leases: [{node: a, nodeUID: u, addresses: [10.6.168.111-10.6.168.112]}]}`, `spec.leases: Invalid value: an address of a lease is not in cidr`},
		{"fd00-0000-0000-0000-0000-0000-0000-0010-124", `{cidr: "fd00::10/124", leases: [{node: a, nodeUID: u, addresses: ["FD00::10"]}]}`, `not in its usual form`},
		{"10.6.168.96-28", `{cidr: 10.6.168.96/28, pins: [{address: 10.6.168.95, pod: a/b, interface: eth0}]}`, `spec.pins: Invalid value: the address of a pin is not in cidr`},
		{"10.6.168.96-28", `{cidr: 10.6.168.96/28, pins: [{address: 10.6.168.101, pod: a/b, interface: eth0}, {address: 10.6.168.101, pod: a/c, interface: eth0}]}`, `spec.pins[1]: Duplicate value`},
	}
}
