package main

// What a user of statefulset.md types, word for word, but for two things: the
// document scales "deploy test-sts", a slip, because the object is a
// StatefulSet; and it installs another product.

const createNetwork = `MACVLAN_MASTER_INTERFACE="ens192"
MACVLAN_MULTUS_NAME="macvlan-$MACVLAN_MASTER_INTERFACE"

cat <<EOF | kubectl apply -f -
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderMultusConfig
metadata:
  name: ${MACVLAN_MULTUS_NAME}
  namespace: kube-system
spec:
  cniType: macvlan
  enableCoordinator: true
  macvlan:
    master:
    - ${MACVLAN_MASTER_INTERFACE}
EOF`

const (
	getMultusConfigs = `kubectl get spidermultusconfigs.spiderpool.spidernet.io -n kube-system`
	getAttachments   = `kubectl get network-attachment-definitions.k8s.cni.cncf.io -n kube-system`
)

const createPool = `cat <<EOF | kubectl apply -f -
apiVersion: spiderpool.spidernet.io/v2beta1
kind: SpiderIPPool
metadata:
  name: test-ippool
spec:
  subnet: 10.6.0.0/16
  ips:
    - 10.6.168.101-10.6.168.110
EOF`

const createStatefulSet = `cat <<EOF | kubectl create -f -
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: test-sts
spec:
  replicas: 2
  selector:
    matchLabels:
      app: test-sts
  template:
    metadata:
      annotations:
        ipam.spidernet.io/ippool: |-
            {      
              "ipv4": ["test-ippool"]
            }
        v1.multus-cni.io/default-network: kube-system/macvlan-ens192
      labels:
        app: test-sts
    spec:
      containers:
        - name: test-sts
          image: nginx
          imagePullPolicy: IfNotPresent
EOF`

const (
	getPools  = `kubectl get spiderippool`
	getPods   = `kubectl get po -l app=test-sts -o wide`
	restart   = `kubectl get pod | grep "test-sts" | awk '{print $1}' | xargs kubectl delete pod`
	scaleUp   = `kubectl scale sts test-sts --replicas 3`
	scaleDown = `kubectl scale sts test-sts --replicas 2`
)

// Beyond the document.
const (
	deleteStatefulSet = `kubectl delete sts test-sts --ignore-not-found`
	deletePool        = `kubectl delete spiderippool test-ippool --ignore-not-found`
	getNodes          = `kubectl get nodes`
	getBlocks         = `kubectl get ipblocks`
)
